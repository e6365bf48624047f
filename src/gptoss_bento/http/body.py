"""A request's body, read before anything is done with it: bounded in size as it comes, in time, and all together."""

from __future__ import annotations

import asyncio
from functools import partial
from http import HTTPStatus

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from gptoss_bento.http.body_memory import bodies
from gptoss_bento.http.errors import RETRY, HttpRefusalError

ARRIVAL = "gptoss_bento.arrival"
"""The scope's key of its `Arrival`, which the connection sets."""

DISCARDED_BYTES = 100_000_000
"""How much is read of a body that is refused, so that its sender gets the answer; then the connection is closed."""

_CLOSE = {"Connection": "close"}


class BodyTooLargeError(HttpRefusalError):
    """413. The message names the limit."""

    def __init__(self, limit: int, has_ended: bool) -> None:
        headers = None if has_ended else _CLOSE
        super().__init__(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body must have at most {limit} bytes.", headers)


class BodyTooSlowError(HttpRefusalError):
    """408. The message names the time."""

    def __init__(self, within_s: float) -> None:
        super().__init__(HTTPStatus.REQUEST_TIMEOUT, f"The body must arrive within {within_s:g} s.", _CLOSE)


class BodyMemoryExhaustedError(HttpRefusalError):
    """503: the memory for bodies is exhausted, and this is the oldest."""

    def __init__(self) -> None:
        message = "Too many large bodies are on their way to this server. Try again later."
        super().__init__(HTTPStatus.SERVICE_UNAVAILABLE, message, {**RETRY, **_CLOSE})


_EVICTED = 0.0  # of the loop's clock: the deadline of an evicted body, which distinguishes it from a slow one


class Arrival:
    """Whether a request's body has come to its end."""

    __slots__ = ("is_complete",)

    def __init__(self) -> None:
        self.is_complete = False


async def read_body(receive: Receive, limit: int, within_s: float, arrival: Arrival | None = None) -> bytes:
    """The whole body. One that is too large is read on, up to `DISCARDED_BYTES`, so that the client gets the answer.

    Args:
        receive: ASGI's.
        limit: bytes.
        within_s: seconds from now until its end.
        arrival: of this body; a complete one needs no timer, which takes longer than to read it.

    Raises:
        BodyTooLargeError: it has more bytes.
        BodyTooSlowError: it was not there in time.
        BodyMemoryExhaustedError: it was evicted, because the memory for incomplete bodies was full.
        ClientDisconnect: the client left before its end.
    """
    if arrival and arrival.is_complete:
        return await _read(receive, limit)
    try:
        async with asyncio.timeout(within_s) as timer:
            try:
                return await _read(receive, limit, timer)
            finally:
                bodies.leave(timer)
    except TimeoutError:
        raise (BodyMemoryExhaustedError() if timer.when() == _EVICTED else BodyTooSlowError(within_s)) from None


async def _read(receive: Receive, limit: int, timer: asyncio.Timeout | None = None) -> bytes:
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
        if more and timer and timer.when() != _EVICTED:
            bodies.hold(timer, len(body), limit, partial(_evict, timer))
    if size > limit:
        raise BodyTooLargeError(limit, has_ended=not more)
    return bytes(body)


def _evict(timer: asyncio.Timeout) -> None:
    if not timer.expired():
        timer.reschedule(_EVICTED)


def with_body(body: bytes, receive: Receive) -> Receive:
    """A `receive` that returns this body in one piece, and then the messages of the original."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
