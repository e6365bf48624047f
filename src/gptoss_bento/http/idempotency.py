"""The header Idempotency-Key: its value, the fingerprint of its request, and what is refused of it. Pure.

As in the draft of the IETF (draft-ietf-httpapi-idempotency-key-header) and at Stripe: the second request with a value
gets the first's answer; another request with it is a 422; one whose first is still answered a 409.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.types import Scope

from gptoss_bento.http.errors import HttpRefusalError
from gptoss_bento.http.json_body import EnvelopeError
from gptoss_bento.strict_json import shown

REPLAYED = {"Idempotent-Replayed": "true"}
"""The header of an answer to a request that has come before."""

PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "A second request with the same value and body gets the answer of the first, for 24 hours.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
}
"""The header as a parameter of OpenAPI."""

_HEADER = b"idempotency-key"
_LONGEST = 255
_RETRY = {"Retry-After": "1"}


def idempotency_key(scope: Scope) -> str | None:
    """The value of the header, or None without one.

    Raises:
        HttpRefusalError: it is no value that can be kept.
    """
    value = next((value for name, value in scope["headers"] if name.lower() == _HEADER), None)
    if value is None:
        return None
    text = str(value, "latin-1").strip()
    if not 0 < len(text) <= _LONGEST or not text.isascii() or not text.isprintable():
        message = f"Idempotency-Key must be 1 to {_LONGEST} printable ASCII characters, got {shown(text)}."
        raise HttpRefusalError(HTTPStatus.BAD_REQUEST, message)
    return text


def fingerprint(route: str, fields: Mapping[str, Any]) -> str:
    """What distinguishes a request from others: its route and fields, whatever their order.

    Raises:
        EnvelopeError: it is nested more deeply than can be written, though it could be read.
    """
    try:
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))  # ASCII: also of lone surrogates
    except RecursionError:
        raise EnvelopeError("The body must be a JSON object; it is nested too deeply") from None
    return hashlib.sha256(f"{route} {text}".encode()).hexdigest()


def refuse_other_request(earlier: str, present: str) -> None:
    """Refuses a request that is not the one that came with its value before.

    Raises:
        HttpRefusalError: 422, their fingerprints differ.
    """
    if earlier != present:
        message = "This Idempotency-Key was used with another request in the last 24 hours. Use a new one."
        raise HttpRefusalError(HTTPStatus.UNPROCESSABLE_ENTITY, message)


def still_answered() -> HttpRefusalError:
    """409: the first request with the value has no answer yet."""
    message = "The first request with this Idempotency-Key is still being answered. Try again."
    return HttpRefusalError(HTTPStatus.CONFLICT, message, _RETRY)


def answer_is_gone(what: str) -> HttpRefusalError:
    """410: what the first request has made is not kept any more."""
    message = f"{what} that was made with this Idempotency-Key is not kept any more. Use a new one to make another."
    return HttpRefusalError(HTTPStatus.GONE, message)
