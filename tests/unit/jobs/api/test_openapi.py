"""That the description says of the job API what the code does; test_routes_fuzz.py compares it with the answers."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError
from pydantic import BaseModel

from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.jobs.api.openapi import REFERENCE, job_api
from gptoss_bento.jobs.api.routes import paths
from gptoss_bento.jobs.input import InputError, Models, engine_request
from gptoss_bento.jobs.input_models import JobInput, JobPolicy, JobRequest
from gptoss_bento.jobs.sampling import ChatParameters, CompletionParameters, engine_parameters
from gptoss_bento.state.job import Job, Status

API = job_api()


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": API["components"]})


def test_routes_are_all_described_with_their_methods() -> None:
    verbs = {"get", "post"}
    described = {path: tuple(name.upper() for name in item if name in verbs) for path, item in API["paths"].items()}

    assert described == paths()


def test_names_in_it_are_all_defined() -> None:
    named = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(API)))

    assert named <= API["components"]["schemas"].keys()


def test_operations_have_unique_names() -> None:
    names = re.findall(r'"operationId": "([^"]+)"', json.dumps(API))

    assert len(names) == len(set(names)) == 12


RIGHT: list[dict[str, Any]] = [
    {"prompt": "x", "stream": True, "max_batch_size": 5, "min_batch_size": 1, "batch_size_growth_factor": 1.5},
    {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": []}], "model": "a"},
    {"prompt": "x", "apply_chat_template": True, "sampling_params": {"max_tokens": 5}},
    {"openai_input": {"messages": []}, "openai_route": "/v1/chat/completions"},
    {"route": "/tokenize", "body": {"prompt": "x"}, "method": "POST"},
]


@pytest.mark.parametrize("given", RIGHT)
def test_inputs_that_are_right_are_as_described(given: dict[str, Any]) -> None:
    engine_request(given, ServerSettings(), Models())
    validator("JobRequest").validate({"input": given, "policy": {"ttl": 10_000.0}, "webhook": "https://example.org/"})


def test_examples_have_every_field_once() -> None:
    assert {name for given in RIGHT for name in given} == JobInput.model_fields.keys()


def test_envelopes_that_are_wrong_are_not_as_described() -> None:
    wrong: list[dict[str, Any]] = [
        {},
        {"input": []},
        {"input": {}, "policy": {"ttl": "x"}},
        {"input": {}, "webhook": 5},
    ]
    for body in wrong:
        with pytest.raises(ValidationError):
            validator("JobRequest").validate(body)


@pytest.mark.parametrize("model", [JobRequest, JobInput, JobPolicy, ChatParameters, CompletionParameters])
def test_description_of_what_is_sent_is_made_by_the_model_that_checks_it(model: type[BaseModel]) -> None:
    made = model.model_json_schema(ref_template=REFERENCE)
    made.pop("$defs", None)

    assert API["components"]["schemas"][model.__name__] == made


@pytest.mark.parametrize("chat", [True, False])
def test_parameters_that_are_documented_are_known(chat: bool) -> None:
    model = ChatParameters if chat else CompletionParameters
    for name in API["components"]["schemas"][model.__name__]["properties"]:
        try:
            engine_parameters({name: {}}, chat=chat, stream=False, default_max_tokens=1)
        except ValueError as error:
            assert "is not a sampling parameter" not in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": ""},
        {"prompt": 5},
        {"messages": []},
        {"messages": [{"role": "king", "content": "x"}]},
        {"messages": [{"content": "x"}]},
        {"prompt": "x", "stream": "yes"},
        {"prompt": "x", "apply_chat_template": 1},
        {"prompt": "x", "max_batch_size": -1},
        {"prompt": "x", "sampling_params": []},
        {"prompt": "x", "sampling_params": {"temprature": 1}},
        {"prompt": "x", "sampling_params": {"temperature": 2.1}},
        {"prompt": "x", "sampling_params": {"n": True}},
        {"prompt": "x", "sampling_params": {"top_p": 0}},
        {"prompt": "x", "sampling_params": {"stop": [""]}},
        {"prompt": "x", "sampling_params": {"stop_token_ids": [-1]}},
        {"prompt": "x", "sampling_params": {"logit_bias": {"17": "much"}}},
        {"prompt": "x", "sampling_params": {"detokenize": False}},
        {"route": "/tokenize", "body": []},
        {"route": "/tokenize", "method": "DELETE"},
        {"openai_input": "x"},
    ],
)
def test_inputs_that_are_wrong_are_so_by_the_description_too(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        engine_request(wrong, ServerSettings(), Models())
    with pytest.raises(ValidationError):
        validator("JobRequest").validate({"input": wrong})


@pytest.mark.parametrize("status", list(Status))
def test_job_objects_are_as_described(status: Status) -> None:
    queued = Job("a-u1", status, 5, None, None, 9, None, 0, 0, None, 0, 0)
    for job in (queued, replace(queued, started_at=6, worker_id="w", retries=1, error="why", ended_at=7)):
        validator("Job").validate(json.loads(job.body(['{"choices":[]}'])))
