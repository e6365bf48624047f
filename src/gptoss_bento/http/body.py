"""A request's body, read before anything is done with it: bounded in size, counted as it comes, and in time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import ClassVar

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

ARRIVAL = "gptoss_bento.arrival"
"""Where a scope has its `Arrival`, if the connection told of it."""

DISCARDED_BYTES = 100_000_000
"""What is read of a body that nobody wants, so that its sender hears why; then it is cut off."""


class BodyRefusedError(Exception):
    """A body that is not read to its end, with the answer to it. The message says why."""

    status: ClassVar[HTTPStatus]
    headers: Mapping[str, str] | None = None


class BodyTooLargeError(BodyRefusedError):
    """413. The message names the limit."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE

    def __init__(self, limit: int, has_ended: bool) -> None:
        super().__init__(f"The body must have at most {limit} bytes.")
        self.headers = None if has_ended else {"Connection": "close"}


class BodyTooSlowError(BodyRefusedError):
    """408. The message names the time."""

    status = HTTPStatus.REQUEST_TIMEOUT

    def __init__(self, within_s: float) -> None:
        super().__init__(f"The body must arrive within {within_s:g} s.")
        self.headers = {"Connection": "close"}


class Arrival:
    """Whether a request's body has come to its end."""

    __slots__ = ("is_complete",)

    def __init__(self) -> None:
        self.is_complete = False


async def read_body(receive: Receive, limit: int, within_s: float, arrival: Arrival | None = None) -> bytes:
    """The whole body. One that is too large is read on, so that the client hears why, up to `DISCARDED_BYTES`.

    Args:
        receive: ASGI's.
        limit: bytes.
        within_s: seconds from now until its end.
        arrival: of this body; one that is there needs no timer, which takes longer than to read it.

    Raises:
        BodyTooLargeError: it has more bytes.
        BodyTooSlowError: it was not there in time.
        ClientDisconnect: it never will be.
    """
    if arrival and arrival.is_complete:
        return await _read(receive, limit)
    try:
        async with asyncio.timeout(within_s):
            return await _read(receive, limit)
    except TimeoutError:
        raise BodyTooSlowError(within_s) from None


async def _read(receive: Receive, limit: int) -> bytes:
    body = bytearray()
    size, more = 0, True
    while more and size <= DISCARDED_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(piece)
        if size <= limit:
            if not more and not body:
                return bytes(piece)
            body += piece
        else:
            body.clear()
    if size > limit:
        raise BodyTooLargeError(limit, has_ended=not more)
    return bytes(body)


def with_body(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives this body in one piece, and then what the original has to say."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
