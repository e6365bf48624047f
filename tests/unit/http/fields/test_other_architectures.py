"""Fields of requests to another model than GPT-OSS, which has a chat template."""

from __future__ import annotations

from typing import Any

import pytest

from gptoss_bento.http.errors import FieldError
from gptoss_bento.http.fields.check import checked
from gptoss_bento.http.fields.other_architectures import DIFFERENCES, OTHER_FIELDS
from gptoss_bento.http.fields.served_model import ServedModel
from gptoss_bento.http.fields.table import FIELDS, Use
from gptoss_bento.http.paths import CHAT, CHAT_BATCH, COMPLETIONS, COUNT_TOKENS, MESSAGES, RESPONSES, TOKENIZE

OTHER = ServedModel(writes_harmony=False)
IMAGE = {"type": "image_url", "image_url": {"url": "https://pics.example/cat.png"}}
HELD = [(path, name) for path, fields in DIFFERENCES.items() for name in fields]


def refusal(path: str, body: dict[str, Any]) -> FieldError:
    with pytest.raises(FieldError) as refused:
        checked(path, body, OTHER)
    return refused.value


@pytest.mark.parametrize(("path", "name"), HELD)
def test_difference_is_of_a_field_that_is_in_the_table(path: str, name: str) -> None:
    assert DIFFERENCES[path][name] != FIELDS[path][name]
    assert OTHER_FIELDS[path][name] == DIFFERENCES[path][name]


@pytest.mark.parametrize("path", FIELDS)
def test_reason_of_another_architecture_is_never_the_harmony_format(path: str) -> None:
    """A field that is refused or has no effect because of it would be one too many."""
    whys = {
        name: field.why
        for name, field in OTHER_FIELDS[path].items()
        if "Harmony" in field.why or "GPT-OSS" in field.why or "control tokens" in field.why
    }

    assert whys.keys() <= {
        *("audio", "modalities", "context_management", "reasoning.context", "reasoning.mode"),  # of no model in vLLM
        "previous_input_messages",
    }


@pytest.mark.parametrize(("path", "name"), [it for it in HELD if DIFFERENCES[it[0]][it[1]].use is Use.HONOURED])
def test_field_that_only_gpt_oss_has_no_use_for_is_passed_on(path: str, name: str) -> None:
    body = {name: "something"}

    assert checked(path, body, OTHER).body is body
    assert checked(path, body, OTHER, refuse_unknown=True).ignored == ()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"chat_template_kwargs": {"enable_thinking": False, "thinking_budget": 5}}),
        (RESPONSES, {"chat_template_kwargs": {"anything": [1]}, "reasoning": {"effort": "low"}}),
        (MESSAGES, {"chat_template_kwargs": {"reasoning_effort": "low"}, "output_config": {"effort": "high"}}),
        (COUNT_TOKENS, {"chat_template_kwargs": {"anything": 1}}),
        (TOKENIZE, {"chat_template_kwargs": {"anything": 1}}),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, IMAGE]}]}),
        (TOKENIZE, {"messages": [{"role": "user", "content": [IMAGE]}]}),
        (CHAT_BATCH, {"messages": [[{"role": "user", "content": [IMAGE]}]]}),
        (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "u"}]}]}),
        (MESSAGES, {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}),
        (COMPLETIONS, {"prompt": "x", "add_special_tokens": False}),
        (CHAT, {"messages": 5}),
        (CHAT, {"messages": ["x"]}),
    ],
)
def test_content_that_a_template_or_a_model_may_read_is_passed_on(path: str, body: dict[str, Any]) -> None:
    assert checked(path, body, OTHER).body is body


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        (
            RESPONSES,
            {"previous_input_messages": [{}]},
            "previous_input_messages has messages of the Harmony format: send them as `input`.",
        ),
        (
            TOKENIZE,
            {"reasoning_effort": "low"},
            "reasoning_effort is what the template makes of it: use `chat_template_kwargs`.",
        ),
        (
            CHAT,
            {"messages": [{"role": "user", "content": "x", "images": ["AA"]}]},
            "messages[0].images is not read: use parts of `content`.",
        ),
        (
            TOKENIZE,
            {"messages": [{"role": "assistant", "function_call": {"name": "f"}}]},
            "messages[0].function_call is not read: use `tool_calls`.",
        ),
        (
            CHAT,
            {"include_reasoning": False, "logprobs": True},
            "logprobs would show the reasoning, which include_reasoning leaves out: give one.",
        ),
        (
            CHAT,
            {"include_reasoning": False, "return_token_ids": True},
            "return_token_ids would show the reasoning, which include_reasoning leaves out: give one.",
        ),
        (CHAT, {"modalities": ["audio"]}, 'modalities must be ["text"]: GPT-OSS writes text.'),
        (MESSAGES, {"stop": "x"}, "stop is no field of /v1/messages: use `stop_sequences`."),
    ],
)
def test_field_without_effect_on_any_model_is_refused(path: str, body: dict[str, Any], words: str) -> None:
    refused = refusal(path, body)

    assert str(refused) == words
    assert refused.param is not None
    assert words.startswith(refused.param)


def test_translations_that_are_not_of_harmony_are_made_all_the_same() -> None:
    body = {"guided_choice": ["a"], "n": 2, "temperature": 0, "user": None}

    assert checked(CHAT, body, OTHER).body == checked(CHAT, body).body


def test_gpt_oss_keeps_its_table() -> None:
    for body in ({"chat_template": "x"}, {"chat_template_kwargs": {"a": 1}}, {"documents": [1]}):
        with pytest.raises(FieldError):
            checked(CHAT, body)
