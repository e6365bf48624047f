"""`include` and `top_logprobs` of responses."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from openai.types.responses import ResponseIncludable

from gptoss_bento.http.errors import FieldError
from gptoss_bento.http.fields.check import checked
from gptoss_bento.http.fields.included import ENCRYPTED_REASONING, LOGPROBS, WITHOUT_EFFECT, without_effect
from gptoss_bento.http.fields.served_model import ServedModel
from gptoss_bento.http.paths import RESPONSES


def test_words_are_those_of_openais_sdk() -> None:
    assert {ENCRYPTED_REASONING, LOGPROBS, *WITHOUT_EFFECT} == set(get_args(ResponseIncludable))


def test_words_without_effect_are_named() -> None:
    asked = {"input": "x", "include": [ENCRYPTED_REASONING, WITHOUT_EFFECT[0]]}

    assert checked(RESPONSES, asked).body is asked
    assert without_effect(asked) == ("include[1]",)
    assert without_effect({"include": 5}) == ()


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"include": ["reasoning.encrypted"]}, "include[0]", "Did you mean reasoning.encrypted_content?"),
        ({"include": [5]}, "include[0]", "got 5."),
        ({"include": [ENCRYPTED_REASONING, LOGPROBS]}, "include[1]", "chat completions have"),
        ({"top_logprobs": 3}, "top_logprobs", "chat completions have it"),
    ],
)
def test_word_that_no_answer_can_honour_is_refused(fields: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(FieldError) as refused:
        checked(RESPONSES, {"input": "x", **fields})

    assert refused.value.param == param
    assert message in str(refused.value)


def test_log_probabilities_of_another_architecture_are_vllms() -> None:
    asked = {"input": "x", "include": [LOGPROBS], "top_logprobs": 3}

    assert checked(RESPONSES, asked, ServedModel(writes_harmony=False)).body is asked
    assert checked(RESPONSES, {"input": "x", "top_logprobs": 0}).body["top_logprobs"] == 0


def test_results_of_a_tool_that_the_request_has_are_an_effect() -> None:
    words = ["code_interpreter_call.outputs", "web_search_call.action.sources", "web_search_call.results"]
    tools = [{"type": "code_interpreter"}, {"type": 5}, "x"]

    assert without_effect({"include": words, "tools": tools}) == ("include[1]", "include[2]")
    assert without_effect({"include": words, "tools": [{"type": "web_search"}]}) == ("include[0]", "include[2]")
