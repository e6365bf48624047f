"""The models of job input: what of JSON they take, and that numbers, depth or encoding never cause another error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from gptoss_bento.config.settings import WEEK_MS, ServerSettings
from gptoss_bento.http.json_body import EnvelopeError
from gptoss_bento.jobs.input import EngineRequest, InputError, Models, engine_request, read_envelope
from gptoss_bento.jobs.input_models import Conversation, JobInput, JobPolicy, JobRequest, NativeJob, OpenAIJob, RouteJob
from gptoss_bento.jobs.sampling import ChatParameters, CompletionParameters

SETTINGS = ServerSettings()
HUGE = 10**4000  # as an integer; JSON has no bound, and Python's parser takes up to 4300 digits
BEYOND = ["1e999", "-1e999", str(HUGE), str(-HUGE), "true", '"1"', "[]", "{}"]


def run(text: str) -> EngineRequest:
    """Runs `input` as it comes: from JSON."""
    return engine_request(json.loads(text), SETTINGS, Models())


def refusal(text: str) -> str:
    with pytest.raises(InputError) as caught:
        run(text)
    return str(caught.value)


# numbers that JSON can hold


@pytest.mark.parametrize("value", BEYOND)
@pytest.mark.parametrize("name", ["temperature", "top_p", "min_p", "presence_penalty", "length_penalty", "n", "seed"])
def test_number_out_of_bounds_is_refused_by_its_name(name: str, value: str) -> None:
    assert refusal(f'{{"prompt": "x", "sampling_params": {{"{name}": {value}}}}}').startswith(f"{name} must be a")


@pytest.mark.parametrize("value", ["1e999", str(HUGE), "-1", "[1]", "true", '"1e999"', '"x"'])
@pytest.mark.parametrize("name", ["max_batch_size", "min_batch_size", "batch_size_growth_factor"])
def test_batch_size_out_of_bounds_is_refused_by_its_name(name: str, value: str) -> None:
    assert refusal(f'{{"prompt": "x", "{name}": {value}}}').startswith(f"{name} must be a number of at least 0, got ")


@pytest.mark.parametrize("value", ["1e999", str(HUGE), "true", '"x"'])
def test_bias_out_of_bounds_is_refused(value: str) -> None:
    text = refusal(f'{{"prompt": "x", "sampling_params": {{"logit_bias": {{"17": {value}}}}}}}')

    assert text.startswith('logit_bias must be an object of numbers by token id, got {"17":')


@pytest.mark.parametrize("value", ["1e999", str(HUGE), "1e300"])
def test_policy_beyond_all_bounds_is_a_week(value: str) -> None:
    envelope = read_envelope(f'{{"input": {{}}, "policy": {{"ttl": {value}}}}}'.encode(), SETTINGS)

    assert envelope.policy.ttl_ms == WEEK_MS


def test_long_value_is_cut_in_the_error() -> None:
    assert len(refusal(f'{{"prompt": "x", "sampling_params": {{"n": {HUGE}}}}}')) < 200


@pytest.mark.parametrize("literal", [1, 0, "true"])
def test_number_is_no_switch(literal: Any) -> None:
    for name in ("early_stopping", "detokenize", "echo"):
        text = refusal(json.dumps({"prompt": "x", "sampling_params": {name: literal}}))
        assert text.startswith(name)
        assert text.endswith(f", got {json.dumps(literal)}.")


def test_integers_in_lists_may_be_written_with_a_point() -> None:
    body = run('{"prompt": "x", "sampling_params": {"stop_token_ids": [5.0]}}').body or {}

    assert [repr(each) for each in body["stop_token_ids"]] == ["5"]


# depth and encoding


def test_deep_value_is_passed_on_where_any_object_may_be() -> None:
    deep = '{"a":' * 500 + "1" + "}" * 500
    body = run(f'{{"prompt": "x", "sampling_params": {{"structured_outputs": {deep}}}}}').body or {}

    assert json.dumps(body["structured_outputs"], separators=(",", ":")) == deep


@pytest.mark.parametrize("field", ["prompt", "stream", "apply_chat_template", "sampling_params", "max_batch_size"])
def test_deep_value_is_refused_by_its_name_where_none_may_be(field: str) -> None:
    deep = "[" * 500 + "]" * 500

    assert field in refusal(json.dumps({"prompt": "x"})[:-1] + f', "{field}": {deep}}}')


def test_lone_surrogate_in_a_name_is_refused_with_the_name() -> None:
    text = refusal('{"prompt": "x", "sampling_params": {"\\ud800": 1, "n": 0}}')

    assert "\\ud800 is not a sampling parameter, got 1." in text


def test_lone_surrogate_in_the_name_of_a_bias_is_refused() -> None:
    assert refusal('{"prompt": "x", "sampling_params": {"logit_bias": {"\\ud800": 1}}}').startswith("logit_bias must")


def test_names_within_free_objects_may_be_any() -> None:
    message = '{"role": "user", "content": "x", "\\ud800": 1}'
    body = run(f'{{"messages": [{message}], "sampling_params": {{"extra_args": {{"\\ud800": 1}}}}}}').body or {}

    assert body["messages"][0]["\ud800"] == 1
    assert body["vllm_xargs"] == {"\ud800": 1}


# what models share


def test_messages_are_passed_on_as_they_are() -> None:
    message = {"name": "me", "role": "user", "tool_calls": None, "content": [{"type": "text", "text": "x"}]}
    job = NativeJob.model_validate({"messages": [message]})

    assert job.messages == [message]
    assert [list(each) for each in job.messages] == [list(message)]


def test_errors_of_messages_are_all_named() -> None:
    text = refusal('{"messages": [{}, {"role": "tool"}, 5, {"role": "user", "content": 5}]}')

    assert text == (
        "messages[0].role must be one of system, developer, user, assistant, tool, got null. "
        "messages[1].content must be a string or a list of parts, got null. "
        "messages[2] must be an object with role and content, got 5. "
        "messages[3].content must be a string or a list of parts, got 5."
    )


def test_input_is_described_by_the_fields_of_its_shapes() -> None:
    shapes = (NativeJob, OpenAIJob, RouteJob)

    assert JobInput.model_fields.keys() == {name for shape in shapes for name in shape.model_fields}


@pytest.mark.parametrize(
    "model", [JobRequest, JobPolicy, JobInput, Conversation, NativeJob, ChatParameters, CompletionParameters]
)
def test_model_is_frozen(model: Any) -> None:
    made = model.model_validate({"input": {}} if model is JobRequest else {})

    with pytest.raises(ValidationError, match="frozen"):
        setattr(made, next(iter(model.model_fields)), None)


def test_secret_of_s3_config_is_not_shown() -> None:
    with pytest.raises(EnvelopeError) as refused:
        read_envelope(b'{"input": {}, "s3Config": "hidden"}', SETTINGS)

    assert str(refused.value) == "s3Config must be an object"
