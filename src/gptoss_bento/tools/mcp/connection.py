"""One open session with an MCP server, in a task of its own.

The contexts of MCP's client must be left by the task that entered them, whichever task calls and is cancelled. So one
task owns them, and ends when it is asked to, or is cancelled with all that it started.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import anyio
import httpx2
from mcp import types
from mcp.client.session import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from gptoss_bento.concurrency import to_its_end
from gptoss_bento.tools.mcp.connections import BoundedTransport, new_client
from gptoss_bento.tools.mcp.failures import McpError, explained
from gptoss_bento.tools.mcp.server import Limits, Server, Transport

T = TypeVar("T")
Work = Callable[[ClientSession], Awaitable[T]]

logger = logging.getLogger(__name__)

_CLIENT = types.Implementation(name="gptoss-bento", version="1")
_ERROR_STATUS = 400
_REASON_S = 0.2


class _Session(ClientSession):
    """The client's session without its check of results.

    It follows the server's own schema, whose patterns could keep the event loop at work for ever; see schema.py.
    """

    async def validate_tool_result(self, name: str, result: types.CallToolResult) -> None:
        """Nothing is checked here."""


class Connection:
    """An open session, or one that is being opened.

    Args:
        server: to connect to.
        transport: HTTP or SSE.
        limits: how much it may take.
        allow_private: whether it may be at an address that is not public.
    """

    def __init__(self, server: Server, transport: Transport, limits: Limits, *, allow_private: bool) -> None:
        self._server = server
        self._kind = transport
        self._limits = limits
        self._http = BoundedTransport(limits, self._fail, allow_private=allow_private)
        self._scope = anyio.CancelScope()
        self._left = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._session: asyncio.Future[ClientSession] = loop.create_future()
        self._failure: asyncio.Future[Exception] = loop.create_future()
        self._calls: set[asyncio.Future[Any]] = set()
        self._owner = asyncio.create_task(self._own(), name=f"MCP server {server.label}")

    @property
    def is_usable(self) -> bool:
        """Whether nothing has failed so far."""
        return not self._failure.done()

    @property
    def status(self) -> int | None:
        """Of the last answer over HTTP."""
        return self._http.status

    async def opened(self) -> ClientSession:
        """Waits until the handshake is over, for at most `open_s`.

        Raises:
            McpError: it failed.
        """
        await _first({self._session, self._failure}, self._limits.open_s)
        if self._session.done():
            return self._session.result()
        if self._failure.done():
            raise self._error(self._failure.result())
        raise self._timeout(self._limits.open_s)

    async def run(self, work: Work[T], limit_s: float) -> T:
        """Works with the session; what is not over in time, or is cancelled, is given up within `close_s`.

        Raises:
            McpError: the server does not answer, or with an error of the protocol.
        """
        session = await self.opened()
        call = asyncio.ensure_future(work(session))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        try:
            await _first({call, self._failure}, limit_s)
            await self._after(call)
            return self._result(call, limit_s)
        finally:
            await to_its_end(self._give_up(call))

    async def _after(self, call: asyncio.Future[Any]) -> None:
        """Over SSE a connection that is closed ends the session, and the owner knows the reason a bit later."""
        error = call.exception() if call.done() and not call.cancelled() else None
        if self._kind is Transport.SSE and isinstance(error, MCPError) and error.code == types.CONNECTION_CLOSED:
            await _first({self._failure}, _REASON_S)
            self._fail(error)

    def _result(self, call: asyncio.Future[T], limit_s: float) -> T:
        if self._failure.done() and not (call.done() and not call.cancelled() and call.exception() is None):
            raise self._error(self._failure.result())
        if not call.done():
            raise self._timeout(limit_s)
        try:
            return call.result()
        except Exception as error:
            raise self._error(error) from error

    async def close(self) -> None:
        """Leaves the server, within two times `close_s`; nothing of the session is left after it."""
        await to_its_end(self._close())

    async def _close(self) -> None:
        self._left.set()
        if self._session.done() and self.is_usable:
            await asyncio.wait({self._owner}, timeout=self._limits.close_s)
        self._scope.cancel()
        for call in tuple(self._calls):
            call.cancel()
        await asyncio.wait({self._owner, *self._calls}, timeout=self._limits.close_s)
        if not self._owner.done():
            logger.warning("the session with the MCP server %s does not end", self._server.label)
            self._owner.cancel()

    async def _give_up(self, call: asyncio.Future[Any]) -> None:
        """Cancels a call. A session whose server does not even take that is of no more use."""
        call.cancel()
        await asyncio.wait({call}, timeout=self._limits.close_s)
        if not call.done():
            self._fail(McpError("it does not react"))
        elif not call.cancelled():
            call.exception()  # is retrieved, so that asyncio does not report it

    async def _own(self) -> None:
        try:
            with self._scope:
                async with self._streams() as (read, write), _Session(read, write, client_info=_CLIENT) as session:
                    await _shake_hands(session)
                    if not self._session.done():
                        self._session.set_result(session)
                    await self._left.wait()
                    self._scope.deadline = anyio.current_time() + self._limits.close_s
            self._fail(McpError("the session has ended"))
        except Exception as error:
            self._fail(error)
        finally:
            with suppress(Exception):
                await self._http.aclose()

    @asynccontextmanager
    async def _streams(self) -> AsyncIterator[Any]:
        if self._kind is Transport.SSE:
            async with sse_client(self._server.url, httpx_client_factory=self._new_client) as streams:
                yield streams
            return
        most = self._limits.answer_bytes
        async with (
            self._new_client() as client,
            streamable_http_client(self._server.url, http_client=client, max_sse_event_size=most) as streams,
        ):
            yield streams

    def _new_client(self, *_: Any, **__: Any) -> httpx2.AsyncClient:
        client = new_client(self._server, self._limits, self._http)
        if self._kind is Transport.SSE:  # its client drops a message that is refused, and waits for the answer
            client.event_hooks = {"response": [self._refused]}
        return client

    async def _refused(self, response: httpx2.Response) -> None:
        if response.status_code >= _ERROR_STATUS:
            self._fail(httpx2.HTTPStatusError("", request=response.request, response=response))

    def _fail(self, error: Exception) -> None:
        if not self._failure.done():
            self._failure.set_result(error)

    def _error(self, error: BaseException) -> McpError:
        """Every end is reported so: in words, with the server's label, without secrets."""
        found = explained(error, self.status)
        why = self._server.without_secrets(str(found))
        return type(found)(f"The MCP server {self._server.label} failed: {why}.", found.code, found.status)

    def _timeout(self, limit_s: float) -> McpError:
        return self._error(McpError(f"no answer within {limit_s:g} s", types.REQUEST_TIMEOUT))


async def _first(futures: set[asyncio.Future[Any]], limit_s: float) -> None:
    """Waits until one of them is done, at most so many seconds."""
    await asyncio.wait(futures, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)


async def _shake_hands(session: ClientSession) -> None:
    """The handshake that all servers know; and for those that know only the newer protocol, its own."""
    try:
        await session.initialize()
    except MCPError as error:
        if error.code != types.UNSUPPORTED_PROTOCOL_VERSION:
            raise
        await session.discover()
