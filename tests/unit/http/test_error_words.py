"""Errors in the words of the client's API."""

from __future__ import annotations

from typing import Any

import pytest

from gptoss_bento.http.error_words import TOO_LONG, in_clients_words
from gptoss_bento.http.paths import CHAT, COMPLETIONS, COUNT_TOKENS, MESSAGES, RESPONSES

PREFIXED = f"/v2/local/openai{CHAT}"


def error(message: Any = "m", param: Any = None, kind: str = "BadRequestError") -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": 400}}


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_error_of_a_field_is_a_sentence(path: str) -> None:
    entry = "{'type': 'greater_than', 'loc': 'body.n', 'msg': 'Input should be greater than 0', 'input': '-1'}"
    found = in_clients_words(path, 400, error(f"1 validation error:\n  {entry}", "body.n"))["error"]

    assert found["message"] == 'n: Input should be greater than 0, got "-1"'


# The parameter that an error is about


@pytest.mark.parametrize(
    ("param", "message", "named"),
    [
        ("body.n", "Input should be a valid integer", "n"),
        ("body.messages.0.role", "Field required", "messages.0.role"),
        ("n", "n must be at least 1, got 0.", "n"),
        ("temperature", "n must be at least 1, got 0.", "temperature"),
        (None, "n must be at least 1, got 0.", "n"),
        (None, "max_tokens must be at least 1, got 0.", "max_tokens"),
        (None, "`top_p` must be in (0, 1].", "top_p"),
        (None, "temperature should be at most 2", "temperature"),
        (None, "prompt is too long", "prompt"),
        ("", "n must be at least 1, got 0.", "n"),
        ("5", "JSON decode error", None),
        ("body.5", "JSON decode error", None),
        (None, "The model `x` does not exist.", None),
        (None, "Too many items: n must be at least 1.", None),
        (None, "Internal server error", None),
        (None, "mustard must", None),
        (None, "", None),
        ("", "", None),
    ],
)
def test_error_names_the_field(param: str | None, message: str, named: str | None) -> None:
    body = error(message, param)

    assert in_clients_words(CHAT, 400, body) == {"error": {**body["error"], "param": named}}


@pytest.mark.parametrize(
    ("path", "asked", "param", "message", "named", "told"),
    [
        (RESPONSES, ["previous_response_id"], "response_id", "Not found", "previous_response_id", "Not found"),
        (
            RESPONSES,
            ["reasoning"],
            "reasoning_effort",
            "reasoning_effort='x' is wrong",
            "reasoning.effort",
            "reasoning.effort='x' is wrong",
        ),
        (
            RESPONSES,
            ["max_output_tokens"],
            None,
            "max_tokens must be at least 1",
            "max_output_tokens",
            "max_output_tokens must be at least 1",
        ),
        (
            CHAT,
            ["max_completion_tokens"],
            None,
            "max_tokens must be at least 1",
            "max_completion_tokens",
            "max_completion_tokens must be at least 1",
        ),
        (PREFIXED, ["max_completion_tokens"], "max_tokens", "m", "max_completion_tokens", "m"),
        (CHAT, ["max_tokens"], "max_completion_tokens", "max_completion_tokens=9", "max_tokens", "max_tokens=9"),
        (CHAT, ["max_tokens", "max_completion_tokens"], "max_tokens", "m", "max_tokens", "m"),
        (CHAT, [], "max_tokens", "m", "max_tokens", "m"),
        ("/v1/responses/resp_1", [], "response_id", "m", "response_id", "m"),
    ],
)
def test_field_is_the_one_that_the_client_wrote(
    path: str, asked: list[str], param: str | None, message: str, named: str, told: str
) -> None:
    found = in_clients_words(path, 400, error(message, param), asked)["error"]

    assert (found["param"], found["message"]) == (named, told)


# A prompt that is too long

VLLMS_SENTENCES = [
    (
        "This model's maximum context length is 4096 tokens. However, your prompt contains at least 4097 input tokens, "
        "which exceeds this limit even without any output tokens. Please reduce the length of the input prompt.",
        "at least 4097 tokens",
    ),
    (
        "This model's maximum context length is 4096 tokens. However, your prompt contains 99999 characters (more than "
        "65536 characters, which is the upper bound for 4096 input tokens). Please reduce the length of the prompt.",
        "99999 characters",
    ),
    ("The decoder prompt (length 5000) is longer than the maximum model length of 4096. Make sure", "5000 tokens"),
    (
        "The decoder prompt (length 4096) plus the number of requested output tokens (at least 1) is longer than the "
        "maximum model length of 4096. Make sure",
        "4096 tokens",
    ),
    ("Input length (5000) exceeds model's maximum context length (4096).", "5000 tokens"),
    ("The engine prompt length 5000 exceeds the max_model_len 4096. Please reduce prompt.", "5000 tokens"),
]


@pytest.mark.parametrize(
    ("path", "what"), [(CHAT, "messages"), (COMPLETIONS, "prompt"), (RESPONSES, "input"), (PREFIXED, "messages")]
)
@pytest.mark.parametrize(("sentence", "length"), VLLMS_SENTENCES)
def test_prompt_that_is_too_long_has_the_sentence_of_openai(path: str, what: str, sentence: str, length: str) -> None:
    told = in_clients_words(path, 400, error(sentence, "input_tokens"))

    assert told["error"] == {
        "message": f"This model's maximum context length is 4096 tokens. However, your {what} resulted in {length}. "
        f"Please reduce the length of the {what}.",
        "type": "invalid_request_error",
        "param": what,
        "code": TOO_LONG,
    }
    assert in_clients_words(path, 400, told) == told


@pytest.mark.parametrize("path", [MESSAGES, COUNT_TOKENS])
@pytest.mark.parametrize(("sentence", "length"), VLLMS_SENTENCES)
def test_anthropics_clients_read_their_own_sentence_and_openais(path: str, sentence: str, length: str) -> None:
    told = in_clients_words(path, 400, {"type": "error", **error(sentence)})

    assert told["error"]["type"] == "invalid_request_error"
    assert told["error"]["message"].startswith(
        f"prompt is too long: {length} > 4096 maximum. This model's maximum context"
    )
    assert in_clients_words(path, 400, told) == told


# Anthropic


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (499, "invalid_request_error"),
        (500, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
    ],
)
def test_error_of_anthropics_api_has_its_types(status: int, kind: str) -> None:
    told = in_clients_words(MESSAGES, status, error("max_completion_tokens is wrong"))

    assert told == {"type": "error", "error": {"type": kind, "message": "max_tokens is wrong"}}


@pytest.mark.parametrize(
    "body",
    [{}, {"detail": "n must be at least 1"}, {"error": "n must be at least 1"}, {"error": None}, {"object": "list"}],
)
def test_bodies_of_other_kinds_stay_unchanged(body: dict[str, Any]) -> None:
    assert in_clients_words(CHAT, 400, body) == body


def test_body_is_not_changed_in_place() -> None:
    body = {"error": {"message": "n must be 1", "param": None}, "id": "r1"}

    assert in_clients_words(CHAT, 400, body) == {"error": {"message": "n must be 1", "param": "n"}, "id": "r1"}
    assert body == {"error": {"message": "n must be 1", "param": None}, "id": "r1"}
