"""The connections of one response with MCP servers. Each lives in a task of its own.

The client of MCP wants to be left in the task that has entered it, and vLLM renders, generates and streams in several.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from gptoss_bento.tools.interfaces import McpAccess, McpServer, McpSession, Outcome

CLOSE_LIMIT_S = 1.0
"""Seconds that an end may take; then its task is cancelled."""


class KeptSession:
    """One connection, which is made at the first call.

    Args:
        access: makes it.
        server: that it goes to.
    """

    def __init__(self, access: McpAccess, server: McpServer) -> None:
        self._access = access
        self._server = server
        self._task: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[McpSession] | None = None
        self._closing = asyncio.Event()

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Outcome:
        """Calls a tool of the server."""
        if self._opened is None or self._task is None or self._task.done():
            self._opened = self._open()
        session = await asyncio.shield(self._opened)
        return await session.call(name, arguments)

    def _open(self) -> asyncio.Future[McpSession]:
        self._closing = asyncio.Event()
        opened: asyncio.Future[McpSession] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._keep(opened, self._closing))
        return opened

    async def _keep(self, opened: asyncio.Future[McpSession], closing: asyncio.Event) -> None:
        try:
            async with self._access.session(self._server) as session:
                opened.set_result(session)
                await closing.wait()
        except Exception as error:
            if not opened.done():
                opened.set_exception(error)
                opened.exception()  # read now, should the call have ended meanwhile
        finally:
            opened.cancel()

    async def close(self) -> None:
        """Ends the connection, at the latest after CLOSE_LIMIT_S."""
        self._closing.set()
        if (task := self._task) is None:
            return
        if self._opened is not None and not self._opened.done():
            task.cancel()
        _, late = await asyncio.wait((task,), timeout=CLOSE_LIMIT_S)
        for each in late:
            each.cancel()
