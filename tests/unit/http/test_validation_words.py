"""Errors of pydantic in vLLM's answers, as sentences."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptoss_bento.http.validation_words import readable
from gptoss_bento.strict_json import shown

ONE = "{'type': 'missing', 'loc': 'body.max_tokens', 'msg': 'Field required', 'input': '<dict of 1 items>'}"
LEAST = (
    "{'type': 'greater_than_equal', 'loc': 'body.thinking.enabled.budget_tokens', "
    "'msg': 'Input should be greater than or equal to 1024', 'input': '0', 'ctx': {'ge': 1024}}"
)
ROOT = (
    "{'type': 'value_error', 'loc': 'body', 'msg': 'Value error, a must be less than b', 'input': '<dict>', 'ctx': {}}"
)
QUOTED = """{'type': 'x', 'loc': 'body.a', 'msg': "Input tag 'off' is wrong", 'input': '1'}"""


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ([ONE], "max_tokens: Field required"),
        ([LEAST], 'thinking.enabled.budget_tokens: Input should be greater than or equal to 1024, got "0"'),
        ([ROOT], "a must be less than b"),
        ([QUOTED], "a: Input tag 'off' is wrong, got \"1\""),
        (
            [ONE, LEAST, "...and 3 more errors"],
            "max_tokens: Field required; thinking.enabled.budget_tokens: "
            'Input should be greater than or equal to 1024, got "0"; ...and 3 more errors',
        ),
        ([f"{ONE[:-1]}...[truncated]"], "max_tokens: Field required"),
    ],
)
def test_entries_are_sentences_with_the_field_first(entries: list[str], sentence: str) -> None:
    label = "error" if len(entries) == 1 else "errors"
    message = f"{len(entries)} validation {label}:\n" + "\n".join(f"  {entry}" for entry in entries)

    assert readable(message) == sentence


@pytest.mark.parametrize("message", ["", "n must be 1", "1 validation error:\n  something else", f"Said: {ONE}"])
def test_message_without_entries_stays(message: str) -> None:
    assert readable(message) == message


@given(value=st.text(min_size=1, max_size=90).filter(lambda text: not text.startswith("<")), text=st.text())
def test_values_of_clients_are_no_entries(value: str, text: str) -> None:
    entry = {"type": "x", "loc": "body.a", "msg": text, "input": value}

    found = readable(f"1 validation error:\n  {entry!r}")
    assert found == f"a: {re.sub('^(Value error|Assertion failed), ', '', text)}, got {shown(value)}"
