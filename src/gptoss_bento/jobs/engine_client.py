"""The engine as jobs see it: an HTTP API called in the same process, with answers that arrive piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol

from starlette.types import ASGIApp, Message, Scope

from gptoss_bento.access.authentication import OWNER
from gptoss_bento.http.errors import BrokenStreamError, error_event
from gptoss_bento.http.fields.served_model import GPT_OSS, ServedModel
from gptoss_bento.http.internal_scope import internal_scope
from gptoss_bento.jobs.input import EngineRequest
from gptoss_bento.strict_json import dumps

_ABORT_GRACE_S = 2.0
_PIECES_AHEAD = 64  # how far the engine may write before it is read


@dataclass(frozen=True)
class Reply:
    """The start of an answer, and its body as it comes."""

    status: int
    content_type: str
    pieces: AsyncIterator[bytes]

    @property
    def is_event_stream(self) -> bool:
        return self.content_type.startswith("text/event-stream")

    async def read(self) -> bytes:
        """The whole body."""
        return b"".join([piece async for piece in self.pieces])


class Engine(Protocol):
    """What the runner needs of an engine. `fake_engine.py` has one for tests."""

    @property
    def dead(self) -> bool:
        """Whether it has given up for good; what it was doing can only be done again by another."""
        ...

    @property
    def served_model(self) -> ServedModel:
        """What fields of requests depend on."""
        ...

    def call(
        self, request: EngineRequest, request_id: str = "", owner: str | None = None
    ) -> AbstractAsyncContextManager[Reply]:
        """Sends a request, for the key of this name. Leaving the context early aborts the generation."""
        ...

    def token_bytes(self, token_ids: Sequence[int]) -> list[bytes] | None:
        """The bytes of each token, if they are known."""
        ...


@dataclass(frozen=True)
class AsgiEngine:
    """An engine behind an ASGI application that speaks vLLM's HTTP API.

    `httpx.ASGITransport` would do, but it holds an answer back until it is whole.
    """

    app: ASGIApp
    is_dead: Callable[[], bool] = lambda: False
    token_bytes: Callable[[Sequence[int]], list[bytes] | None] = field(default=lambda _: None)
    served_model: ServedModel = GPT_OSS

    @property
    def dead(self) -> bool:
        return self.is_dead()

    @asynccontextmanager
    async def call(
        self, request: EngineRequest, request_id: str = "", owner: str | None = None
    ) -> AsyncIterator[Reply]:
        exchange = _Exchange(request.path, dumps(request.body).encode() if request.body is not None else b"")
        task = asyncio.create_task(exchange.run(self.app, _scope(request, request_id, owner)))
        try:
            yield await exchange.reply()
        finally:
            await exchange.leave(task)


class _Exchange:
    """One request and its answer, between the application's task and the reader's."""

    def __init__(self, path: str, body: bytes) -> None:
        self._path = path
        self._body = body
        self._sent = False
        self._messages: asyncio.Queue[Message | Exception | None] = asyncio.Queue(_PIECES_AHEAD)
        self._left = asyncio.Event()

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        try:
            await app(scope, self._receive, self._send)
            end: Exception | None = None
        except Exception as error:
            end = error
        if not self._left.is_set():
            await self._messages.put(end)

    async def reply(self) -> Reply:
        start = await self._next()
        if start is None:
            raise ConnectionError("the engine's application ended without an answer")
        headers = {name.lower(): value for name, value in start.get("headers", [])}
        return Reply(start["status"], headers.get(b"content-type", b"").decode("latin-1"), self._pieces())

    async def _pieces(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self._next()
            if message is None:
                raise ConnectionError("the engine's answer broke off")
            if piece := message.get("body"):
                yield piece
            more = message.get("more_body", False)

    async def _next(self) -> Message | None:
        message = await self._messages.get()
        if isinstance(message, BrokenStreamError):
            if message.status < HTTPStatus.INTERNAL_SERVER_ERROR:  # the request is at fault, as a client would read it
                return {"body": error_event(self._path, message.status, str(message))}
            raise ConnectionError(str(message)) from message
        if isinstance(message, Exception):
            raise ConnectionError(f"the engine's application failed: {type(message).__name__}") from message
        return message

    async def leave(self, task: asyncio.Task[None]) -> None:
        """Sends the application the client's disconnect, and makes sure that it ends.

        It comes before the cancellation: vLLM's routes run a handler in its own task, which only the former ends.
        """
        self._left.set()
        while not self._messages.empty():
            self._messages.get_nowait()  # lets a writer that waits for room go on
        _, running = await asyncio.wait([task], timeout=_ABORT_GRACE_S)
        if running:
            task.cancel()
            await asyncio.wait([task])

    async def _receive(self) -> Message:
        if not self._sent:
            self._sent = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if not self._left.is_set():
            await self._messages.put(message)


def _scope(request: EngineRequest, request_id: str, owner: str | None) -> Scope:
    headers = [(b"x-request-id", request_id.encode())] if request_id else []
    return {**internal_scope(request.method, request.path, request.query, headers), OWNER: owner}
