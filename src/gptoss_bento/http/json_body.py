"""The JSON object that a request's body is. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from gptoss_bento.http.errors import HttpRefusalError
from gptoss_bento.strict_json import dumps, loads, shown

FIELDS = "gptoss_bento.fields"
"""Where a scope has the fields of its request as the client wrote them; the engine may get others."""


class EnvelopeError(HttpRefusalError):
    """400: the body or the query of a request is not what its route takes."""

    def __init__(self, message: str) -> None:
        super().__init__(HTTPStatus.BAD_REQUEST, message)


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object that a request's body is.

    Raises:
        EnvelopeError: it is none.
    """
    try:
        fields = loads(body)
    except ValueError as error:
        raise EnvelopeError(f"The body must be a JSON object; it is not JSON: {_reason(error)}") from None
    if not isinstance(fields, dict):
        raise EnvelopeError(f"The body must be a JSON object, got {shown(fields)}")
    return fields


def json_bytes(fields: Mapping[str, Any]) -> bytes:
    """A request's body with these fields, as UTF-8.

    Raises:
        EnvelopeError: it is nested more deeply than can be written, though it could be read.
    """
    try:
        return dumps(fields).encode()
    except RecursionError:
        raise EnvelopeError("The body must be a JSON object; it is nested too deeply") from None


def _reason(error: ValueError) -> str:
    return "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error).split("\n")[0]
