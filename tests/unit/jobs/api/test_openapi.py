"""That the description says of the job API what the code does; test_routes_fuzz.py compares it with the answers."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any, get_type_hints

import pytest
from jsonschema import Draft202012Validator, ValidationError

from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.jobs.api.openapi import JobInput, job_api
from gptoss_bento.jobs.api.routes import paths
from gptoss_bento.jobs.input import Models, engine_request
from gptoss_bento.jobs.sampling import documented, engine_parameters
from gptoss_bento.state.job import Job, Status

API = job_api()


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": API["components"]})


def test_every_route_is_described_with_its_methods() -> None:
    verbs = {"get", "post"}
    described = {path: tuple(name.upper() for name in item if name in verbs) for path, item in API["paths"].items()}

    assert described == paths()


def test_every_name_in_it_is_defined() -> None:
    named = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(API)))

    assert named <= API["components"]["schemas"].keys()


def test_operations_have_names_of_their_own() -> None:
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
def test_right_inputs_are_as_described(given: dict[str, Any]) -> None:
    engine_request(given, ServerSettings(), Models())
    validator("JobRequest").validate({"input": given, "policy": {"ttl": 10_000.0}, "webhook": "https://example.org/"})


def test_these_have_every_field_once() -> None:
    assert {name for given in RIGHT for name in given} == get_type_hints(JobInput).keys()


def test_wrong_envelopes_are_not() -> None:
    wrong: list[dict[str, Any]] = [
        {},
        {"input": []},
        {"input": {}, "policy": {"ttl": "x"}},
        {"input": {}, "webhook": 5},
    ]
    for body in wrong:
        with pytest.raises(ValidationError):
            validator("JobRequest").validate(body)


def test_every_documented_parameter_is_known() -> None:
    for name, words in documented().items():
        assert words
        for chat in (True, False):
            try:
                engine_parameters({name: {}}, chat=chat, stream=False, default_max_tokens=1)
            except ValueError as error:
                assert "is not a sampling parameter" not in str(error)  # noqa: PT017


@pytest.mark.parametrize("status", list(Status))
def test_job_objects_are_as_described(status: Status) -> None:
    queued = Job("a-u1", status, 5, None, None, 9, None, 0, 0, None, 0, 0)
    for job in (queued, replace(queued, started_at=6, worker_id="w", retries=1, error="why", ended_at=7)):
        validator("Job").validate(json.loads(job.body(['{"choices":[]}'])))
