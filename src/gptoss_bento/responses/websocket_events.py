"""The messages of a WebSocket connection to /v1/responses, as the Open Responses specification has them. Pure.

A turn is a request of HTTP within: its events become messages, and an error of any status becomes an `error` event.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from gptoss_bento.http.errors import FieldError, HttpRefusalError
from gptoss_bento.http.fields.unknown import HEADER as IGNORED_FIELDS
from gptoss_bento.http.json_body import json_object
from gptoss_bento.responses.event_stream import data_of
from gptoss_bento.strict_json import dumps, loads_stored, shown

CREATE = "response.create"
PREVIOUS_NOT_FOUND = "previous_response_not_found"
CONNECTION_LIMIT = "websocket_connection_limit_reached"
IN_PROGRESS = "response_in_progress"

_CODES = {
    HTTPStatus.UNAUTHORIZED: "invalid_api_key",
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_exceeded",
    HTTPStatus.SERVICE_UNAVAILABLE: "service_unavailable",
}
_INVALID, _OF_SERVER = "invalid_request_error", "server_error"
_TRANSPORT = {
    "stream": (True, "events are how a connection answers"),
    "background": (False, "use POST /v1/responses"),
}
"""What a message may say of how it is answered, beside nothing, and what it should know otherwise."""
_ENDS = tuple(
    f"event: {end}\n".encode() for end in ("response.completed", "response.incomplete", "response.failed", "error")
)
_FAILS = (b"event: response.failed\n", b"event: error\n")
_ERROR = b"event: error\n"
_KEPT = ("retry-after", IGNORED_FIELDS)


def read_create(text: str) -> tuple[dict[str, Any], bool]:
    """The body of POST /v1/responses that a client's message means, and whether it wants an output.

    Raises:
        HttpRefusalError: it is none, or asks for what a connection does not do.
    """
    fields = json_object(text.encode())
    kind = fields.pop("type", None)
    if kind != CREATE:
        raise FieldError("type", f'type must be "{CREATE}", got {shown(kind)}.')
    if fields.get("stream_id") is not None:
        raise FieldError("stream_id", "stream_id is not done here: open a connection for each conversation.")
    for name, (fixed, why) in _TRANSPORT.items():
        if (value := fields.pop(name, None)) not in (None, fixed):
            raise FieldError(name, f"{name} must be {dumps(fixed)} over a WebSocket, got {shown(value)}: {why}.")
    generate = fields.pop("generate", None)
    if generate not in (None, True, False):
        raise FieldError("generate", f"generate must be true or false, got {shown(generate)}.")
    left = {name: value for name, value in fields.items() if name != "stream_id"} | {"stream": True}
    return left, generate is not False


def frames_of(body: bytes) -> Iterator[bytes]:
    """The events of a piece of a stream; each piece has whole events."""
    return (frame for frame in body.split(b"\n\n") if frame.strip())


def ends(frame: bytes) -> bool:
    """Whether this is the last event of a response."""
    return frame.startswith(_ENDS)


def fails(frame: bytes) -> bool:
    """Whether this event says that the response has failed."""
    return frame.startswith(_FAILS)


def message_of(frame: bytes, ignored: str | None = None) -> str:
    """The message that an event is: its JSON, but for an error, which has another shape over a WebSocket.

    Args:
        frame: of the stream.
        ignored: the fields that had no effect, which the first event of a response names.
    """
    headers = {IGNORED_FIELDS: ignored} if ignored else None
    if not frame.startswith(_ERROR):
        data = data_of(frame)
        return dumps({**loads_stored(data), "headers": headers}) if headers else data
    said = json.loads(data_of(frame))  # of http/error_boundary.py
    return error_message(HTTPStatus(int(said["code"])), said["message"], said["param"], headers=headers)


def refusal_message(error: HttpRefusalError) -> str:
    """The event for a message that is refused."""
    return error_message(error.status, str(error), error.param, headers=error.headers)


def answer_message(status: int, headers: Mapping[str, str], body: bytes) -> str:
    """The event for an answer of HTTP that is no stream.

    Args:
        status: of the answer.
        headers: names in lower case.
        body: OpenAI's error.
    """
    found = HTTPStatus(status)
    try:
        error = json.loads(body)["error"]
        message, param, code = str(error["message"]), error.get("param"), error.get("code")
    except (ValueError, KeyError, TypeError, AttributeError):
        message, param, code = found.phrase, None, None
    if found is HTTPStatus.NOT_FOUND and param == "previous_response_id":
        return error_message(HTTPStatus.BAD_REQUEST, message, param, PREVIOUS_NOT_FOUND)
    kept = {name: value for name, value in headers.items() if name in _KEPT or name.startswith("x-ratelimit-")}
    return error_message(found, message, param, code if isinstance(code, str) else None, kept)


def error_message(
    status: HTTPStatus,
    message: str,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> str:
    """An `error` event.

    Args:
        status: that HTTP would have answered.
        message: a sentence.
        param: the field that is wrong.
        code: what programs look at; None: what the status means.
        headers: that HTTP would have sent, such as Retry-After.
    """
    known = _CODES.get(status, _OF_SERVER if status >= HTTPStatus.INTERNAL_SERVER_ERROR else _INVALID)
    error: dict[str, Any] = {
        "type": _OF_SERVER if status >= HTTPStatus.INTERNAL_SERVER_ERROR else _INVALID,
        "code": code or known,
        "message": message,
        "param": param,
    }
    if headers:
        error["headers"] = dict(headers)
    return dumps({"type": "error", "status": int(status), "error": error})
