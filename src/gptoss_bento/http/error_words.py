"""An error's body in the client's words: its field, its API's sentences and types. Pure.

vLLM 0.32 names fields of its own models (`max_tokens` for `max_output_tokens`), and says in five ways that a prompt is
too long; clients such as LiteLLM look for OpenAI's sentence and code. Types of errors: Anthropic's API reference.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Any

from gptoss_bento.http.paths import CHAT, COMPACT, COMPLETIONS, INPUT_TOKENS, RESPONSES, destination, is_anthropic_path
from gptoss_bento.http.validation_words import readable

TOO_LONG = "context_length_exceeded"
"""OpenAI's code of a prompt that is too long."""

_ANTHROPIC_TYPES: Mapping[int, str] = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "request_too_large",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
    HTTPStatus.SERVICE_UNAVAILABLE: "overloaded_error",
    HTTPStatus.GATEWAY_TIMEOUT: "timeout_error",
}
_LIMITS = ("max_tokens", "max_completion_tokens")
# What a field of vLLM's is called on a route, unless the client wrote that very name.
_NAMES: Mapping[str, Mapping[str, str]] = {
    CHAT: {"input_tokens": "messages", "input_text": "messages"},
    COMPLETIONS: {"input_tokens": "prompt", "input_text": "prompt"},
    RESPONSES: {
        **dict.fromkeys(_LIMITS, "max_output_tokens"),
        "response_id": "previous_response_id",
        "reasoning_effort": "reasoning.effort",
        "response_format": "text.format",
        "input_tokens": "input",
        "input_text": "input",
    },
}
_NAMES_IN_MESSAGES = {"max_completion_tokens": "max_tokens", "reasoning_effort": "output_config.effort"}
_PROMPTS = {CHAT: "messages", RESPONSES: "input"}

# "n must be at least 1, got 0." and the like
_SUBJECT = re.compile(r"`?([a-z][a-z0-9_]*)`? (?:must|should|is|can|may|has) ")
# vLLM's sentences: renderers/params.py, v1/engine/input_processor.py, serve/utils/api_utils.py, responses/serving.py
_TOO_LONG = [
    re.compile(r"maximum context length is (?P<most>\d+) tokens.* contains (?P<length>(at least )?\d+ \w+)", re.DOTALL),
    re.compile(r"prompt \(length (?P<length>\d+)\) .*longer than the maximum model length of (?P<most>\d+)", re.DOTALL),
    re.compile(r"Input length \((?P<length>\d+)\) exceeds model's maximum context length \((?P<most>\d+)\)"),
    re.compile(r"prompt length (?P<length>\d+) exceeds the max_model_len (?P<most>\d+)"),
]


def in_clients_words(path: str, status: int, body: dict[str, Any], asked: Collection[str] = ()) -> dict[str, Any]:
    """The body of an OpenAI or Anthropic error, as a client of that API expects it.

    Args:
        path: of the request, with or without prefix.
        status: of the answer.
        body: it is not changed; what has no `error` object is returned as it is.
        asked: the names of the request's fields, if they are known.
    """
    error = body.get("error")
    if not isinstance(error, dict):
        return body
    to = destination(path)
    route = to.route if to else path
    route = RESPONSES if route in (INPUT_TOKENS, COMPACT) else route
    message = readable(str(error.get("message", "")))
    if is_anthropic_path(path):
        return anthropic_error(status, _too_long_for_anthropic(message) or _named_in(message, _NAMES_IN_MESSAGES))
    if found := _too_long(message):
        words = {"message": _sentence(route, found), "type": "invalid_request_error", "code": TOO_LONG}
        return {**body, "error": {**error, **words, "param": _PROMPTS.get(route, "prompt")}}
    param = _param(error.get("param"), message)
    name = _as_written(route, param, asked)
    if param and name and name != param:
        message = _named_in(message, {param: name})
    return {**body, "error": {**error, "message": message, "param": name}}


def anthropic_error(status: int, message: str) -> dict[str, Any]:
    """An error of Anthropic's API."""
    usual = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "api_error"
    kind = _ANTHROPIC_TYPES.get(status, usual)
    return {"type": "error", "error": {"type": kind, "message": message}}


def _param(given: Any, message: str) -> str | None:
    """The field of vLLM's that an error is about; vLLM writes `body.n`, or only in the text, or a place in the text."""
    subject = _SUBJECT.match(message)
    param = str(given or (subject[1] if subject else "")).removeprefix("body.")
    return None if not param or param.isdigit() else param


def _as_written(route: str, param: str | None, asked: Collection[str]) -> str | None:
    if param is None or param in asked:
        return param
    if route == CHAT and param in _LIMITS:
        return next((name for name in _LIMITS if name in asked), param)
    return _NAMES.get(route, {}).get(param, param)


def _named_in(message: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        message = re.sub(rf"\b{old}\b", new, message)
    return message


def _too_long(message: str) -> tuple[str, str] | None:
    """How long a prompt is and may be, if that is what is wrong."""
    found = next((match for pattern in _TOO_LONG if (match := pattern.search(message))), None)
    if found is None:
        return None
    length = found["length"].removesuffix(" input")
    return (length if length.endswith("characters") else f"{length} tokens"), found["most"]


def _sentence(route: str, found: tuple[str, str]) -> str:
    length, most = found
    what = _PROMPTS.get(route, "prompt" if route == COMPLETIONS else "messages")
    start = f"This model's maximum context length is {most} tokens. However, your {what} resulted in {length}."
    return f"{start} Please reduce the length of the {what}."


def _too_long_for_anthropic(message: str) -> str | None:
    """Anthropic's own clients look for its sentence, LiteLLM for OpenAI's."""
    found = _too_long(message)
    return f"prompt is too long: {found[0]} > {found[1]} maximum. {_sentence(CHAT, found)}" if found else None
