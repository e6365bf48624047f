"""One WebSocket connection to /v1/responses: one turn after the other, until it is closed.

A turn is a POST within this process, through the layers that a request of HTTP passes: its key is checked again, it is
admitted, counted, validated, stored and drained as any other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gptoss_bento.http.errors import INTERNAL_ERROR, HttpRefusalError
from gptoss_bento.http.fields.unknown import HEADER as IGNORED_FIELDS
from gptoss_bento.http.json_body import json_bytes
from gptoss_bento.http.paths import RESPONSES
from gptoss_bento.responses import websocket_events as events
from gptoss_bento.responses.connection_memory import ConnectionMemory, with_memory

logger = logging.getLogger(__name__)

NORMAL, GOING_AWAY, UNSUPPORTED_DATA = 1000, 1001, 1003
"""Close codes of RFC 6455."""
_UNREAD = 1  # a message that waits; each may be as large as a body
_OF_A_TURN = (b"authorization", b"x-api-key")


@dataclass(frozen=True)
class Limits:
    """Of a connection.

    Args:
        idle_s: seconds without a turn until it is closed.
        lifetime_s: seconds until it is closed at all, after the turn that runs.
        memory: bytes of the conversation that it remembers.
    """

    idle_s: float
    lifetime_s: float
    memory: int


@dataclass(frozen=True)
class Close:
    """How a connection is closed.

    Args:
        code: RFC 6455's.
        reason: a sentence.
        error: an event that is sent before.
    """

    code: int
    reason: str
    error: str | None = None


STOPPING = Close(GOING_AWAY, "The server is stopping. Connect again.")
_LIMIT_REACHED = "This connection has reached the longest time that one may last. Open a new one."
_LIFETIME = Close(
    NORMAL,
    _LIMIT_REACHED,
    events.error_message(HTTPStatus.BAD_REQUEST, _LIMIT_REACHED, code=events.CONNECTION_LIMIT),
)
_BINARY = Close(UNSUPPORTED_DATA, "Messages are JSON in text.")
_BUSY = events.error_message(
    HTTPStatus.CONFLICT,
    "A response is in progress on this connection: wait for its end, or open another connection.",
    code=events.IN_PROGRESS,
)
_BROKE_OFF = "The answer broke off. Try again."
_CLOSED = (OSError, RuntimeError)  # what uvicorn raises when the connection is closed, or being closed


class Session:
    """One connection.

    Args:
        scope: of the connection.
        receive: ASGI's.
        send: ASGI's.
        turns: answers each turn, as a request of HTTP.
        limits: of the connection.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, turns: ASGIApp, limits: Limits) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._turns = turns
        self._limits = limits
        self._memory = ConnectionMemory(limits.memory)
        self._inbox: asyncio.Queue[Message | None] = asyncio.Queue(_UNREAD)
        self._turn: asyncio.Task[None] | None = None
        self._newest = _Answer(self._text)  # of the newest turn
        self._gone = asyncio.Event()  # the client
        self._closing: Close | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Until the connection is closed by either side."""
        await self._receive()  # websocket.connect
        with suppress(*_CLOSED):
            await self._send({"type": "websocket.accept"})
        loop = asyncio.get_running_loop()
        end = loop.call_later(self._limits.lifetime_s, self.close, _LIFETIME)
        reading = asyncio.create_task(self._read())
        self._wait_for_a_turn()
        try:
            while not self._gone.is_set():
                await self._next()
        finally:
            end.cancel()
            reading.cancel()
            self._end_waiting()
            self._gone.set()
            if self._turn:
                await self._turn

    def close(self, how: Close) -> None:
        """Closes the connection, after the turn that runs."""
        self._closing = self._closing or how
        self._wake()

    async def _read(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._gone.set()
                self._wake()
                return
            await self._inbox.put(message)

    def _wake(self) -> None:
        with suppress(asyncio.QueueFull):  # it is awake
            self._inbox.put_nowait(None)

    async def _next(self) -> None:
        message = await self._inbox.get()
        if message is not None and not self._gone.is_set():
            await self._answer(message)
        if self._closing and not self._turn and not self._gone.is_set():
            await self._say_goodbye(self._closing)

    async def _say_goodbye(self, how: Close) -> None:
        if how.error:
            await self._text(how.error)
        with suppress(*_CLOSED):
            await self._send({"type": "websocket.close", "code": how.code, "reason": how.reason})
        self._gone.set()

    async def _answer(self, message: Message) -> None:
        if self._turn and self._newest.has_ended:
            await asyncio.wait([self._turn])  # its client may have read the end before the turn is over
        if self._turn:
            await self._text(_BUSY)
        elif (text := message.get("text")) is None:
            self.close(_BINARY)
        elif not self._closing:  # which says it all
            try:
                self._start(*events.read_create(text))
            except HttpRefusalError as error:
                await self._text(events.refusal_message(error))

    def _start(self, fields: Mapping[str, Any], generates: bool) -> None:
        body = json_bytes(fields)
        self._end_waiting()
        self._newest = _Answer(self._text)
        scope = with_memory(self._turn_scope(), self._memory, generates=generates)
        self._turn = asyncio.create_task(self._take_turn(scope, body, fields.get("previous_response_id")))

    async def _take_turn(self, scope: Scope, body: bytes, previous: Any) -> None:
        answer = self._newest
        try:
            await self._turns(scope, _given(body, self._gone), answer.send)
            await answer.break_off(_BROKE_OFF)  # if it has no end
        except Exception:
            logger.exception("a turn of a WebSocket connection")
            await answer.break_off(INTERNAL_ERROR)
        finally:
            if answer.has_failed:
                self._memory.forget(previous if isinstance(previous, str) else None)
            self._turn = None
            if not self._gone.is_set():
                self._wait_for_a_turn()
                self._wake()

    def _turn_scope(self) -> Scope:
        headers = [(name, value) for name, value in self._scope["headers"] if name in _OF_A_TURN]
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},  # 2.3: a stream listens for the client's disconnect
            "http_version": "1.1",
            "method": "POST",
            "scheme": "https" if self._scope.get("scheme") == "wss" else "http",
            "path": RESPONSES,
            "raw_path": RESPONSES.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [*headers, (b"host", b"engine"), (b"content-type", b"application/json")],
            "client": self._scope.get("client"),
            "server": self._scope.get("server"),
            "state": {},
        }

    async def _text(self, text: str) -> None:
        with suppress(*_CLOSED):  # `_read` notices
            await self._send({"type": "websocket.send", "text": text})

    def _wait_for_a_turn(self) -> None:
        idle = Close(NORMAL, f"No turn within {self._limits.idle_s:g} s.")
        self._idle = asyncio.get_running_loop().call_later(self._limits.idle_s, self.close, idle)

    def _end_waiting(self) -> None:
        if self._idle:
            self._idle.cancel()


class _Answer:
    """The answer of a turn on its way to the client.

    Args:
        text: sends a message.
    """

    def __init__(self, text: Callable[[str], Any]) -> None:
        self._text = text
        self._start: Message | None = None
        self._body = bytearray()
        self._is_stream = False
        self._ignored: str | None = None  # fields that the first event is to name
        self.has_ended = False
        self.has_failed = False

    async def send(self, message: Message) -> None:
        """ASGI's `send`. A delta costs one look at how it begins."""
        if message["type"] == "http.response.start":
            self._start = message
            self._is_stream = message["status"] == HTTPStatus.OK
            self._ignored = _headers_of(message).get(IGNORED_FIELDS)
        elif self._is_stream:
            for frame in events.frames_of(message.get("body", b"")):
                await self._event(frame)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                await self._refused()

    async def break_off(self, message: str) -> None:
        """Nothing more comes. A client that still waits for an end gets an error."""
        if not self.has_ended:
            self.has_failed = self.has_ended = True
            await self._text(events.error_message(HTTPStatus.INTERNAL_SERVER_ERROR, message))

    async def _event(self, frame: bytes) -> None:
        self.has_failed |= events.fails(frame)
        if not self.has_ended:  # HTTP has an error after `response.failed`; here it would belong to the next turn
            self.has_ended = events.ends(frame)
            ignored, self._ignored = self._ignored, None
            await self._text(events.message_of(frame, ignored))

    async def _refused(self) -> None:
        self.has_failed = self.has_ended = True
        start = self._start or {"status": HTTPStatus.INTERNAL_SERVER_ERROR}
        await self._text(events.answer_message(start["status"], _headers_of(start), bytes(self._body)))


def _headers_of(start: Message) -> dict[str, str]:
    """The headers of an answer, names in lower case; values of the same name are joined, as HTTP has it."""
    headers: dict[str, str] = {}
    for raw, value in start.get("headers", ()):
        name, text = raw.decode().lower(), value.decode("latin-1")
        headers[name] = f"{headers[name]}, {text}" if name in headers else text
    return headers


def _given(body: bytes, gone: asyncio.Event) -> Receive:
    """The `receive` of a turn: its body, and then that the client has left."""
    is_given = False

    async def receive() -> Message:
        nonlocal is_given
        if not is_given:
            is_given = True
            return {"type": "http.request", "body": body, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    return receive
