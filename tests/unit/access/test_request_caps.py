"""What a key's limits make of one request."""

from __future__ import annotations

from typing import Any

import pytest

from gptoss_bento.access.request_caps import CapError, capped, caps_need_body
from gptoss_bento.config.api_keys import KeyLimits
from gptoss_bento.http.paths import CHAT, COMPLETIONS, MESSAGES, RESPONSES

TOKENS = KeyLimits(max_tokens=10)
LOW, MEDIUM = KeyLimits(reasoning_effort="low"), KeyLimits(reasoning_effort="medium")


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (CHAT, {}, {"max_completion_tokens": 10}),
        (CHAT, {"max_tokens": None}, {"max_tokens": None, "max_completion_tokens": 10}),
        (CHAT, {"max_tokens": 7}, {"max_tokens": 7}),
        (CHAT, {"max_completion_tokens": 10}, {"max_completion_tokens": 10}),
        (COMPLETIONS, {}, {"max_tokens": 10}),
        (COMPLETIONS, {"max_tokens": 0}, {"max_tokens": 0}),
        (RESPONSES, {}, {"max_output_tokens": 10}),
        (MESSAGES, {"max_tokens": 10}, {"max_tokens": 10}),
    ],
)
def test_max_tokens_that_is_missing_becomes_the_keys_cap(
    path: str, body: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert capped(path, body, TOKENS) == expected


def test_completion_keeps_the_engines_small_default() -> None:
    assert capped(COMPLETIONS, {}, KeyLimits(max_tokens=100)) == {"max_tokens": 16}
    assert capped(COMPLETIONS, {"max_tokens": None}, KeyLimits(max_tokens=100)) == {"max_tokens": 100}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHAT, {"max_tokens": 11}, "max_tokens"),
        (CHAT, {"max_tokens": 5, "max_completion_tokens": 11}, "max_completion_tokens"),
        (CHAT, {"max_tokens": "11"}, "max_tokens"),  # pydantic would take it for a number
        (CHAT, {"max_tokens": 11.0}, "max_tokens"),
        (COMPLETIONS, {"max_tokens": 11}, "max_tokens"),
        (RESPONSES, {"max_output_tokens": 11}, "max_output_tokens"),
        (MESSAGES, {"max_tokens": 11}, "max_tokens"),
    ],
)
def test_max_tokens_beyond_the_cap_is_refused_with_the_cap(path: str, body: dict[str, Any], param: str) -> None:
    with pytest.raises(CapError, match="must be a whole number of at most 10 with this key, got ") as caught:
        capped(path, body, TOKENS)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (CHAT, {}, {"reasoning_effort": "low"}),
        (CHAT, {"reasoning_effort": "low"}, {"reasoning_effort": "low"}),
        (CHAT, {"reasoning_effort": "odd"}, {"reasoning_effort": "odd"}),  # the engine refuses it
        (RESPONSES, {}, {"reasoning": {"effort": "low"}}),
        (RESPONSES, {"reasoning": {"summary": "auto"}}, {"reasoning": {"summary": "auto", "effort": "low"}}),
        (RESPONSES, {"reasoning": "odd"}, {"reasoning": "odd"}),
        (MESSAGES, {"output_config": None}, {"output_config": {"effort": "low"}}),
        (COMPLETIONS, {}, {}),
    ],
)
def test_effort_is_low_where_no_more_is_allowed(path: str, body: dict[str, Any], expected: dict[str, Any]) -> None:
    assert capped(path, body, LOW) == expected


@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES])
def test_medium_is_what_the_engine_takes_anyway(path: str) -> None:
    assert capped(path, {"model": "m"}, MEDIUM) == {"model": "m"}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHAT, {"reasoning_effort": "high"}, "reasoning_effort"),
        (RESPONSES, {"reasoning": {"effort": "high"}}, "reasoning.effort"),
        (MESSAGES, {"output_config": {"effort": "high"}}, "output_config.effort"),
    ],
)
def test_effort_beyond_the_cap_is_refused(path: str, body: dict[str, Any], param: str) -> None:
    with pytest.raises(CapError, match="must be at most medium with this key, got 'high'") as caught:
        capped(path, body, MEDIUM)
    assert caught.value.param == param


def test_body_of_the_request_is_not_changed_in_place() -> None:
    body: dict[str, Any] = {"reasoning": {}}
    capped(RESPONSES, body, LOW)
    assert body == {"reasoning": {}}


def test_bodies_are_parsed_only_where_a_cap_needs_it() -> None:
    assert caps_need_body(TOKENS)
    assert not caps_need_body(KeyLimits(requests_per_minute=1, tokens_per_minute=1, streams=1, jobs=1))
