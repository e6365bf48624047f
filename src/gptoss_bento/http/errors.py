"""Error bodies in the shape of the API that was called."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from gptoss_bento.http.error_words import anthropic_error, in_clients_words
from gptoss_bento.http.paths import HEALTHZ, PROBES, RESPONSES, destination, is_anthropic_path, is_openai_path

RETRY_AFTER_S = 5
"""The Retry-After where nothing better is known, such as while the engine loads; OpenAI's SDKs wait."""
RETRY = {"Retry-After": str(RETRY_AFTER_S)}
INTERNAL_ERROR = "The server made a mistake; its log says which."
"""What a client reads of an unexpected exception."""

ASKED = "gptoss_bento.asked"
"""Where a scope has the names of a request's fields."""

_PROBES = frozenset({*PROBES, HEALTHZ})  # their codes are no errors
_RETRYABLE = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


class HttpRefusalError(Exception):
    """The base of all refusals of a request over HTTP.

    Each API shapes the answer in one place: `openai_refusal`, and `answer` in
    `jobs/api/routes.py`. The exception's text is the message.

    Args:
        param: the field of the request that is wrong; only the OpenAI API reports it.
        code: OpenAI's word for this error, where its clients know one; else the status.
    """

    def __init__(
        self,
        status: HTTPStatus,
        message: str,
        headers: Mapping[str, str] | None = None,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.headers = headers
        self.param = param


class FieldError(HttpRefusalError):
    """400: a field of the request is neither done nor without effect.

    Args:
        param: the field, as the client wrote it: `messages[0].content[1].type`.
    """

    def __init__(self, param: str, message: str) -> None:
        super().__init__(HTTPStatus.BAD_REQUEST, message, param=param)


class BrokenStreamError(Exception):
    """A stream that has started cannot go on. The client gets the message as the last event, and no `[DONE]`."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


def openai_error(
    status: HTTPStatus,
    message: str,
    *,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
    code: str | None = None,
) -> JSONResponse:
    """An error as OpenAI's SDKs parse it; vLLM's own errors have the same fields."""
    return JSONResponse(_openai_body(status, message, param, code), status_code=status, headers=headers)


def openai_refusal(error: HttpRefusalError) -> JSONResponse:
    """The answer of the OpenAI API to what it refuses."""
    return openai_error(error.status, str(error), param=error.param, headers=error.headers, code=error.code)


def _openai_body(status: HTTPStatus, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": status.phrase, "param": param, "code": code or status.value}}


def error_for(path: str, status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error in the shape of the API that a path belongs to: OpenAI's, Anthropic's, or the job API's plain text.

    429 and 503 always say when to try again.
    """
    given = {name.lower(): value for name, value in (headers or {}).items()}
    if status in _RETRYABLE:
        given.setdefault("retry-after", str(RETRY_AFTER_S))
    return JSONResponse(_body(path, status, message), status, given)


def _body(path: str, status: HTTPStatus, message: str) -> dict[str, Any]:
    if not is_openai_path(path):
        return {"error": message}
    return anthropic_error(status, message) if is_anthropic_path(path) else _openai_body(status, message)


def error_event(path: str, status: HTTPStatus, message: str) -> bytes:
    """The last event of a stream that broke, as the API of this path sends its errors."""
    to = destination(path)
    if to is not None and to.path.startswith(RESPONSES):
        event = {"type": "error", "code": str(status.value), "message": message, "param": None}
        return b"event: error\ndata: " + json.dumps(event).encode() + b"\n\n"
    name = b"event: error\n" if is_anthropic_path(path) else b""
    return name + b"data: " + json.dumps(_body(path, status, message)).encode() + b"\n\n"


def reshaped(
    path: str, status: HTTPStatus, content: bytes, headers: Mapping[str, str], asked: Collection[str] = ()
) -> JSONResponse | None:
    """What should be said instead of an error's body, or None if body and headers are as they should be.

    BentoML says `{"error": "text"}` everywhere, Starlette plain text, FastAPI `{"detail": ...}`; vLLM has OpenAI's
    shape, but names of its own.

    Args:
        path: of the request.
        status: of the answer.
        content: its body.
        headers: and its headers, with names in lower case.
        asked: the names of the request's fields, if they are known.
    """
    if path in _PROBES:
        return None
    body = _parsed(content)
    fits = _fits(path, body)
    said = in_clients_words(path, status, body, asked) if fits and is_openai_path(path) else body
    if fits and said == body and (status not in _RETRYABLE or "retry-after" in headers):
        return None
    kept = {name: value for name, value in headers.items() if not name.startswith("content-")}
    if not fits:
        return error_for(path, status, _text(path, status, body, kept), kept)
    when = {"retry-after": str(RETRY_AFTER_S)} if status in _RETRYABLE else {}
    return JSONResponse(said, status, {**when, **kept})


def _fits(path: str, body: Any) -> bool:
    error = body.get("error") if isinstance(body, dict) else None
    if error is None or (is_anthropic_path(path) and "type" not in body):
        return False
    return isinstance(error, dict if is_openai_path(path) else str)


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return content.decode(errors="replace").strip()


def _text(path: str, status: HTTPStatus, body: Any, headers: Mapping[str, str]) -> str:
    """The sentence within an error of any shape."""
    if status is HTTPStatus.METHOD_NOT_ALLOWED and (allowed := headers.get("allow")):
        return f"{path} takes {allowed}."
    while isinstance(body, dict):
        body = next((body[name] for name in ("error", "message", "detail") if body.get(name)), None)
    if isinstance(body, str) and body and body != status.phrase:
        return body
    return f"There is no route {path}." if status is HTTPStatus.NOT_FOUND else f"{status.phrase}."


def not_found(request: Request, _: Exception) -> JSONResponse:
    """The answer for an unknown path: the plain body of the job API.

    Not by `request.url`, here and elsewhere: Starlette raises for a query that is not UTF-8, or a host that is none.
    """
    return JSONResponse({"error": f"There is no route {request.scope['path']}."}, HTTPStatus.NOT_FOUND)
