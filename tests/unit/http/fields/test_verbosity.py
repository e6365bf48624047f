"""How long an answer should be, as a sentence of the instructions."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from gptoss_bento.http.errors import FieldError
from gptoss_bento.http.fields.check import checked
from gptoss_bento.http.fields.verbosity import SENTENCES, verbosity_of_response
from gptoss_bento.http.paths import CHAT, CHAT_BATCH, RESPONSES

LOW = SENTENCES["low"]
USER = {"role": "user", "content": "Hi"}
INSTRUCTION = {"role": "developer", "content": LOW}
TEXT = {"verbosity": "low"}


@pytest.mark.parametrize(
    ("messages", "engine"),
    [
        ([USER], [INSTRUCTION, USER]),
        ([], [INSTRUCTION]),
        (
            [{"role": "system", "content": "Be kind."}, USER],
            [{"role": "system", "content": f"Be kind.\n\n{LOW}"}, USER],
        ),
        (
            [{"role": "developer", "content": [{"type": "text", "text": "Be kind."}]}, USER],
            [
                {
                    "role": "developer",
                    "content": [{"type": "text", "text": "Be kind."}, {"type": "text", "text": f"\n\n{LOW}"}],
                },
                USER,
            ],
        ),
        ([{"role": "system", "content": 5}], [INSTRUCTION, {"role": "system", "content": 5}]),
        ([5], [INSTRUCTION, 5]),
    ],
)
def test_verbosity_of_a_chat_is_a_sentence_of_its_instructions(messages: Any, engine: Any) -> None:
    given = {"messages": messages, "verbosity": "low"}
    before = copy.deepcopy(given)

    assert checked(CHAT, given).body == {"messages": engine}
    assert given == before


def test_verbosity_of_several_chats_is_a_sentence_of_each() -> None:
    body = checked(CHAT_BATCH, {"messages": [[USER], [USER]], "verbosity": "low"}).body

    assert body == {"messages": [[INSTRUCTION, USER]] * 2}


@pytest.mark.parametrize(
    ("body", "engine"),
    [
        ({"input": "Hi"}, {"input": "Hi", "instructions": LOW}),
        ({"input": [USER]}, {"input": [USER], "instructions": LOW}),
        ({"input": "Hi", "instructions": ""}, {"input": "Hi", "instructions": LOW}),
        ({"input": "Hi", "instructions": "Be kind."}, {"input": "Hi", "instructions": f"Be kind.\n\n{LOW}"}),
        (
            {"input": [{"role": "developer", "content": "Be kind."}, USER]},
            {"input": [{"role": "developer", "content": f"Be kind.\n\n{LOW}"}, USER]},
        ),
        (
            {"input": [{"role": "developer", "content": [{"type": "input_text", "text": "Be kind."}]}, USER]},
            {
                "input": [
                    {
                        "role": "developer",
                        "content": [
                            {"type": "input_text", "text": "Be kind."},
                            {"type": "input_text", "text": f"\n\n{LOW}"},
                        ],
                    },
                    USER,
                ]
            },
        ),
        ({"input": "Hi", "instructions": 5}, {"input": "Hi", "instructions": 5}),
    ],
)
def test_verbosity_of_a_response_is_a_sentence_of_its_instructions(
    body: dict[str, Any], engine: dict[str, Any]
) -> None:
    given = {**body, "text": TEXT}

    assert {**given, **verbosity_of_response(given)} == {**engine, "text": TEXT}
    assert checked(RESPONSES, given).body is given


def test_medium_verbosity_adds_nothing() -> None:
    body = {"input": "Hi", "text": {"verbosity": "medium", "format": {"type": "text"}}}

    assert verbosity_of_response(body) == {}
    assert checked(CHAT, {"messages": [USER], "verbosity": "medium"}).body == {"messages": [USER]}


@pytest.mark.parametrize("value", ["lowest", 5, ["low"], {"low": 1}])
def test_verbosity_of_another_value_is_refused(value: Any) -> None:
    with pytest.raises(FieldError, match=r'^verbosity must be "low", "medium" or "high", got ') as in_chat:
        checked(CHAT, {"messages": [USER], "verbosity": value})
    with pytest.raises(FieldError) as in_response:
        verbosity_of_response({"input": "Hi", "text": {"verbosity": value}})

    assert (in_chat.value.param, in_response.value.param) == ("verbosity", "text.verbosity")
