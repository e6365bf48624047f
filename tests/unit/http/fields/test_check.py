"""What becomes of each field of a request."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from gptoss_bento.http.errors import FieldError
from gptoss_bento.http.fields import check
from gptoss_bento.http.fields.check import CHECKED, checked
from gptoss_bento.http.fields.served_model import ServedModel
from gptoss_bento.http.fields.table import FIELDS, Use
from gptoss_bento.http.paths import CHAT, CHAT_BATCH, COMPLETIONS, COUNT_TOKENS, MESSAGES, RESPONSES

REFUSED_FIELDS = [
    (path, name) for path, fields in FIELDS.items() for name, field in fields.items() if field.use is Use.REFUSED
]


def nested(name: str, value: Any) -> dict[str, Any]:
    outer, dot, inner = name.partition(".")
    return {outer: {inner: value}} if dot else {name: value}


@pytest.mark.parametrize(("path", "name"), REFUSED_FIELDS)
def test_refused_field_is_named_unless_its_value_is_harmless(path: str, name: str) -> None:
    with pytest.raises(FieldError) as refused:
        checked(path, nested(name, "something"))

    assert refused.value.param == name
    assert str(refused.value) == f"{name} {FIELDS[path][name].why}."
    for harmless in (None, *FIELDS[path][name].harmless):
        assert checked(path, nested(name, harmless)).ignored == ()


@pytest.mark.parametrize("path", FIELDS)
def test_body_without_changes_is_returned_as_the_same_object(path: str) -> None:
    body = {
        name: "x"
        for name, field in FIELDS[path].items()
        if field.use is not Use.REFUSED and "." not in name and not name.startswith(("guided_", "verbosity"))
    }

    assert checked(path, body).body is body
    assert checked(path, body).ignored == ()


@pytest.mark.parametrize("path", CHECKED)
def test_unknown_field_is_listed_or_refused(path: str) -> None:
    body = {"model": "m", "modle": "m", "x" * 300: 1, "": 2}

    assert checked(path, body).ignored == ("modle", "x" * 300, "")
    assert checked(path, body).body is body
    with pytest.raises(FieldError, match=r"^modle is no field of .* Did you mean model\?$") as refused:
        checked(path, body, refuse_unknown=True)
    assert refused.value.param == "modle"


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        (CHAT, {"top_k": 2**70}, "top_k"),
        (CHAT, {"thinking_token_budget": 2**63}, "thinking_token_budget"),
        (CHAT, {"seed": -(2**63)}, "seed"),
        (COMPLETIONS, {"nobody_knows": 2**70}, "nobody_knows"),
        (RESPONSES, {"reasoning": {"effort": 2**70}}, "reasoning.effort"),
        (MESSAGES, {"thinking": {"type": "enabled", "budget_tokens": 2**70}}, "thinking.budget_tokens"),
        (RESPONSES, {"text": {"verbosity": 2**70}}, "text.verbosity"),
        (RESPONSES, {"text": {"verbositi": 2**70}}, "text.verbositi"),
        (MESSAGES, {"output_config": {"effort": 2**70}}, "output_config.effort"),
        (CHAT, {"response_format": 2**70}, "response_format"),
        (CHAT, {"repetition_detection": {"max_pattern_size": 2**70}}, "repetition_detection.max_pattern_size"),
        (CHAT, {"stop_token_ids": [1, 2**70]}, r"stop_token_ids\[1\]"),
        (COMPLETIONS, {"vllm_xargs": {"a": [{"b": [[2**70]]}]}}, r"vllm_xargs\.a\[0\]\.b\[0\]\[0\]"),
        (COMPLETIONS, {"structured_outputs": {"json": {"maximum": 2**70}}}, "structured_outputs.json.maximum"),
    ],
)
def test_integer_that_no_message_to_the_engine_can_hold_is_refused(path: str, body: dict[str, Any], name: str) -> None:
    with pytest.raises(FieldError, match=rf"^{name} must be a number of at most 64 bits, got -?\d+\.$") as refused:
        checked(path, body)

    assert refused.value.param == name.replace("\\", "")
    assert checked(CHAT, {"seed": 2**63 - 1}).body == {"seed": 2**63 - 1}


SCHEMA = {"type": "integer", "x-note": 2**70}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "x", "more": 2**70}]}),
        (CHAT, {"tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]}),
        (CHAT, {"structured_outputs": {"json": SCHEMA}}),
        (RESPONSES, {"text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}}),
        (COMPLETIONS, {"logit_bias": {"5": 1e300}}),
    ],
)
def test_large_number_that_reaches_the_engine_as_text_is_none(path: str, body: dict[str, Any]) -> None:
    assert checked(path, body).body == body


def test_unknown_field_without_a_similar_one_gets_no_suggestion() -> None:
    with pytest.raises(FieldError, match=r"^qqqqqqqq is no field of /v1/chat/completions\.$"):
        checked(CHAT, {"qqqqqqqq": 1}, refuse_unknown=True)


def test_unknown_field_is_compared_by_the_start_of_its_name_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr(check, "nearest", lambda name, _: compared.append(name))

    with pytest.raises(FieldError):
        checked(CHAT, {"q" * 1_000_000: 1}, refuse_unknown=True)

    assert [len(name) < 200 for name in compared] == [True]


def test_unknown_options_are_listed_with_their_field() -> None:
    assert checked(RESPONSES, {"reasoning": {"effort": "low", "efort": "high"}}).ignored == ("reasoning.efort",)
    assert checked(RESPONSES, {"text.verbosity": "high"}).ignored == ("text.verbosity",)
    assert checked(RESPONSES, {"text": {"verbosity": "medium"}, "reasoning": {"summary": "auto"}}).ignored == ()


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        (RESPONSES, "n", 1),
        (MESSAGES, "parallel_tool_calls", True),
        (MESSAGES, "include_reasoning", True),
        (MESSAGES, "logprobs", False),
    ],
)
def test_field_of_another_route_that_asks_for_nothing_is_ignored(path: str, name: str, value: Any) -> None:
    assert checked(path, {name: value}).ignored == (name,)


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        (RESPONSES, {"max_tokens": 5}, "max_tokens is no field of /v1/responses: use `max_output_tokens`."),
        (
            RESPONSES,
            {"reasoning_effort": "low"},
            "reasoning_effort is no field of /v1/responses: use `reasoning.effort`.",
        ),
        (RESPONSES, {"n": 2}, "n is no field of /v1/responses."),
        (
            CHAT,
            {"reasoning": {"effort": "low"}},
            "reasoning is no field of /v1/chat/completions: use `reasoning_effort`.",
        ),
        (
            CHAT,
            {"max_output_tokens": 5},
            "max_output_tokens is no field of /v1/chat/completions: use `max_completion_tokens`.",
        ),
        (MESSAGES, {"stop": ["x"]}, "stop is no field of /v1/messages: use `stop_sequences`."),
        (MESSAGES, {"guided_regex": "x"}, "guided_regex is no field of /v1/messages."),
        (MESSAGES, {"parallel_tool_calls": False}, "parallel_tool_calls is no field of /v1/messages."),
        (MESSAGES, {"seed": 0}, "seed is no field of /v1/messages."),
        (COMPLETIONS, {"messages": [1]}, "messages is no field of /v1/completions."),
        (COMPLETIONS, {"chat_template_kwargs": {"a": 1}}, "chat_template_kwargs is no field of /v1/completions."),
    ],
)
def test_field_of_another_route_is_refused_with_its_name_on_this_one(
    path: str, body: dict[str, Any], told: str
) -> None:
    with pytest.raises(FieldError) as refused:
        checked(path, body)

    assert str(refused.value) == told
    assert refused.value.param == next(iter(body))


def test_field_of_another_route_with_an_empty_value_is_listed() -> None:
    assert checked(MESSAGES, {"frequency_penalty": 0, "logprobs": False, "user": "u"}).ignored == (
        "frequency_penalty",
        "logprobs",
        "user",
    )


@pytest.mark.parametrize("path", CHECKED)
def test_null_counts_as_absent(path: str) -> None:
    body: dict[str, Any] = dict.fromkeys([*FIELDS[path], "nobody_knows"])

    assert checked(path, body).body == {}
    assert checked(path, body, refuse_unknown=True).ignored == ()


@pytest.mark.parametrize(
    ("path", "body", "engine"),
    [
        (
            CHAT,
            {"messages": [{"role": "assistant", "content": None, "tool_calls": None, "name": None}]},
            {"messages": [{"role": "assistant", "content": None}]},
        ),
        (
            RESPONSES,
            {"input": ["x", {"role": "user", "content": "x", "id": None}]},
            {"input": ["x", {"role": "user", "content": "x"}]},
        ),
        (RESPONSES, {"reasoning": {"effort": None, "summary": "auto"}}, {"reasoning": {"summary": "auto"}}),
        (CHAT, {"stream_options": {"include_usage": None}}, {"stream_options": {}}),
        (CHAT, {"chat_template_kwargs": {"reasoning_effort": "high"}}, {"reasoning_effort": "high"}),
        (
            CHAT,
            {"chat_template_kwargs": {"reasoning_effort": "high"}, "reasoning_effort": "high"},
            {"reasoning_effort": "high"},
        ),
        (CHAT, {"chat_template_kwargs": {"enable_thinking": True, "add_generation_prompt": True, "x": None}}, {}),
        (CHAT, {"chat_template_kwargs": {}}, {}),
        (CHAT_BATCH, {"chat_template_kwargs": {"reasoning_effort": "high"}}, {"reasoning_effort": "high"}),
        (RESPONSES, {"chat_template_kwargs": {"reasoning_effort": "low"}}, {"reasoning": {"effort": "low"}}),
        (
            RESPONSES,
            {"chat_template_kwargs": {"reasoning_effort": "low"}, "reasoning": {"summary": "auto"}},
            {"reasoning": {"summary": "auto", "effort": "low"}},
        ),
        (MESSAGES, {"chat_template_kwargs": {"reasoning_effort": "low"}}, {"output_config": {"effort": "low"}}),
        (COUNT_TOKENS, {"chat_template_kwargs": {"reasoning_effort": "low"}}, {"output_config": {"effort": "low"}}),
        (CHAT, {"guided_json": {"type": "object"}}, {"structured_outputs": {"json": {"type": "object"}}}),
        (
            CHAT,
            {"guided_json": {}, "guided_whitespace_pattern": " "},
            {"structured_outputs": {"json": {}, "whitespace_pattern": " "}},
        ),
        (COMPLETIONS, {"guided_choice": ["a"]}, {"structured_outputs": {"choice": ["a"]}}),
        (COMPLETIONS, {"guided_regex": "a+"}, {"structured_outputs": {"regex": "a+"}}),
        (RESPONSES, {"guided_grammar": "root"}, {"structured_outputs": {"grammar": "root"}}),
        (
            RESPONSES,
            {"guided_json": {}, "text": {"format": {"type": "text"}}},
            {"structured_outputs": {"json": {}}, "text": {}},
        ),
        (
            CHAT,
            {"guided_json": {}, "response_format": {"type": "text"}},
            {"structured_outputs": {"json": {}}, "response_format": {"type": "text"}},
        ),
        (
            MESSAGES,
            {"guided_json": {"a": 1}},
            {"output_config": {"format": {"type": "json_schema", "schema": {"a": 1}}}},
        ),
        (
            CHAT,
            {"n": 2, "temperature": 0, "top_p": 0.1},
            {"n": 2, "temperature": 1, "top_k": 1, "top_p": 1, "min_p": 0},
        ),
        (COMPLETIONS, {"n": 2, "temperature": 0.0}, {"n": 2, "temperature": 1, "top_k": 1, "top_p": 1, "min_p": 0}),
        (
            CHAT,
            {"n": 2, "temperature": 0, "use_beam_search": True},
            {"n": 2, "temperature": 0, "use_beam_search": True},
        ),
        (CHAT, {"n": 1, "temperature": 0}, {"n": 1, "temperature": 0}),
        (CHAT, {"n": 2, "temperature": 0.5}, {"n": 2, "temperature": 0.5}),
        (CHAT, {"n": True, "temperature": False}, {"n": True, "temperature": False}),
        (RESPONSES, {"truncation": "auto"}, {}),
        (RESPONSES, {"truncation": "disabled"}, {"truncation": "disabled"}),
    ],
)
def test_engine_gets_the_fields_that_it_reads(path: str, body: dict[str, Any], engine: dict[str, Any]) -> None:
    before = copy.deepcopy(body)

    assert checked(path, body).body == engine
    assert body == before


@pytest.mark.parametrize(
    ("path", "body", "param", "told"),
    [
        (CHAT, {"chat_template_kwargs": {"max_tokens": 5}}, "chat_template_kwargs.max_tokens", "would have no effect"),
        (
            CHAT,
            {"chat_template_kwargs": {"enable_thinking": False}},
            "chat_template_kwargs.enable_thinking",
            "would have no effect",
        ),
        (
            CHAT,
            {"chat_template_kwargs": {"enable_thinking": 1}},
            "chat_template_kwargs.enable_thinking",
            "would have no effect",
        ),
        (
            MESSAGES,
            {"chat_template_kwargs": {"model_identity": "x"}},
            "chat_template_kwargs.model_identity",
            "would have no effect",
        ),
        (
            CHAT,
            {"chat_template_kwargs": {"reasoning_effort": "low"}, "reasoning_effort": "high"},
            "chat_template_kwargs.reasoning_effort",
            'is "low", and reasoning_effort is "high": give one',
        ),
        (
            RESPONSES,
            {"chat_template_kwargs": {"reasoning_effort": "low"}, "reasoning": {"effort": "high"}},
            "chat_template_kwargs.reasoning_effort",
            "reasoning.effort",
        ),
        (
            CHAT,
            {"guided_json": {}, "response_format": {"type": "json_object"}},
            "guided_json",
            "One constraint can be given, got guided_json, response_format.",
        ),
        (CHAT, {"guided_json": {}, "guided_regex": "x"}, "guided_json", "One constraint"),
        (CHAT, {"guided_whitespace_pattern": " "}, "guided_whitespace_pattern", "One constraint"),
        (RESPONSES, {"guided_json": {}, "text": {"format": {"type": "json_object"}}}, "guided_json", "text.format"),
        (
            MESSAGES,
            {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
            "context_management.edits[0].type",
            "is not done here",
        ),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
            "image_url",
        ),
    ],
)
def test_values_without_effect_are_refused(path: str, body: dict[str, Any], param: str, told: str) -> None:
    with pytest.raises(FieldError) as refused:
        checked(path, body)

    assert refused.value.param == param
    assert told in str(refused.value)


def test_context_management_of_claude_code_passes() -> None:
    """It sends this with every request; Harmony drops earlier reasoning by itself."""
    body = {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}}

    assert checked(MESSAGES, body).body is body


@pytest.mark.parametrize(
    "body",
    [
        {"chat_template_kwargs": 5},
        {"chat_template_kwargs": "x"},
        {"context_management": 5},
        {"context_management": {"edits": {}}},
        {"output_config": 5, "chat_template_kwargs": {"reasoning_effort": "low"}},
        {"output_config": "x", "guided_json": {}},
        {"output_config": [1], "guided_json": {}},
        {"thinking": 5},
    ],
)
def test_wrong_shapes_are_left_to_the_engine(body: dict[str, Any]) -> None:
    checked(MESSAGES, body)


def test_routes_without_a_table_pass() -> None:
    body = {"anything": None}

    assert checked("/detokenize", body, refuse_unknown=True).body is body


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_stop_beside_beam_search_is_refused_because_beams_are_not_searched_for_it(path: str) -> None:
    with pytest.raises(FieldError, match=r"^stop would have no effect beside use_beam_search"):
        checked(path, {"model": "m", "use_beam_search": True, "stop": ["a"]})
    others: list[dict[str, Any]] = [{"stop": []}, {"stop": None}, {"stop": "a", "use_beam_search": False}]
    for harmless in others:
        checked(path, {"model": "m", "use_beam_search": True, **harmless})


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("default", [0, 0.0])
def test_several_answers_are_the_likeliest_one_where_the_default_temperature_is_0(path: str, default: float) -> None:
    model = ServedModel(default_temperature=default)
    greedy = {"n": 2, "temperature": 1, "top_k": 1, "top_p": 1, "min_p": 0}

    assert checked(path, {"n": 2, "top_p": 0.5}, model).body == greedy
    assert checked(path, {"n": 2, "temperature": None}, model).body == greedy
    for body in ({"n": 2, "temperature": 0.5}, {"n": 1}, {"n": 2, "use_beam_search": True}, {}):
        assert checked(path, body, model).body is body
    for other in (None, 0.7, 1):
        assert checked(path, {"n": 2}, ServedModel(default_temperature=other)).body == {"n": 2}


def test_token_ids_of_hidden_reasoning_are_refused() -> None:
    body = {"include_reasoning": False, "return_token_ids": True}
    with pytest.raises(FieldError, match=r"^return_token_ids would show the reasoning, .*: give one\.$") as refused:
        checked(CHAT, body)

    assert refused.value.param == "return_token_ids"
    assert checked(CHAT_BATCH, body).body is body, "which has them"
    for harmless in ({"return_token_ids": False}, {"include_reasoning": True}, {"include_reasoning": None}):
        checked(CHAT, {**body, **harmless})
