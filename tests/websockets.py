"""A client of WebSocket connections that calls an ASGI application without a network."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Self

from starlette.types import ASGIApp, Message, Scope

from tests.waiting import HANG_S

_ENDS = ("response.completed", "response.incomplete", "response.failed", "error")


class Connection:
    """One connection.

    Args:
        app: the application.
        key: that it presents.
        path: that it asks for.
        headers: further ones.
    """

    def __init__(
        self, app: ASGIApp, key: str = "alice", path: str = "/v1/responses", headers: Mapping[str, str] | None = None
    ) -> None:
        given = {"host": "test", "authorization": f"Bearer {key}", **(headers or {})}
        self._scope: Scope = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "path": path,
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "extensions": {"websocket.http.response": {}},
        }
        self._app = app
        self._to: asyncio.Queue[Message] = asyncio.Queue()
        self._from: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self.status = 101
        """Of the answer to the handshake."""

    async def __aenter__(self) -> Self:
        await self._to.put({"type": "websocket.connect"})
        running = self._app(self._scope, self._to.get, self._from.put)
        self._task = asyncio.ensure_future(running)
        first = await self._next()
        if first["type"] != "websocket.accept":
            self.status = first["status"]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.leave()

    async def leave(self) -> None:
        """The client closes the connection, and waits until the application has ended."""
        await self._to.put({"type": "websocket.disconnect", "code": 1000})
        if self._task:
            async with asyncio.timeout(HANG_S):
                await self._task

    async def say(self, message: Any) -> None:
        """Sends a message: bytes, a text, or what JSON is made of."""
        if isinstance(message, bytes):
            await self._to.put({"type": "websocket.receive", "bytes": message})
        else:
            text = message if isinstance(message, str) else json.dumps(message)
            await self._to.put({"type": "websocket.receive", "text": text})

    async def heard(self) -> dict[str, Any]:
        """The next event; of a close, its code as `close`."""
        message = await self._next()
        if message["type"] == "websocket.close":
            return {"close": message["code"], "reason": message["reason"]}
        event: dict[str, Any] = json.loads(message["text"])
        return event

    async def turn(self, **fields: Any) -> list[dict[str, Any]]:
        """The events of a response that is asked for."""
        await self.say({"type": "response.create", "input": "hello", **fields})
        return await self.rest()

    async def rest(self) -> list[dict[str, Any]]:
        """The events up to the end of a response."""
        events = [await self.heard()]
        while events[-1].get("type") not in _ENDS and "close" not in events[-1]:
            events.append(await self.heard())
        return events

    async def body(self) -> dict[str, Any]:
        """Of the answer of HTTP that refuses the handshake."""
        found: dict[str, Any] = json.loads((await self._next())["body"])
        return found

    async def _next(self) -> Message:
        async with asyncio.timeout(HANG_S):
            return await self._from.get()
