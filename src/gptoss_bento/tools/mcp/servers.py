"""MCP servers for the tools of one response: what they offer, and calls that always end.

Whatever a server does, a list of tools is a list or an `McpError`, and a call is a result: never a hang, another
exception or more than the limits. Importing this takes half a second, of MCP's client.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

from mcp import types
from mcp.client.session import ClientSession

from gptoss_bento.tools.mcp.connection import Connection, Work
from gptoss_bento.tools.mcp.failures import McpError, SessionLostError
from gptoss_bento.tools.mcp.offer import TooManyToolsError, offered
from gptoss_bento.tools.mcp.results import NOTHING, bounded, clean, text_of
from gptoss_bento.tools.mcp.schema import cut, mismatch
from gptoss_bento.tools.mcp.server import Limits, McpTool, Server, Transport

_LOGGERS = ("mcp.client.streamable_http", "mcp.client.sse", "mcp.shared.jsonrpc_dispatcher", "client")
"""Log addresses, session ids and what servers send, each error with a traceback. What failed is in our errors."""
_NOT_HTTP = frozenset(range(400, 500)) - {401, 403, 407, 408, 429}
"""Answers to the first message by which a server may be one of the older protocol, over SSE."""
_MOST_LISTED = 2_000  # each of which is read, whether it is allowed or not
_MARGIN_CHARS = 8192  # of what is beyond the bound: a secret may be across it


@dataclass(frozen=True)
class McpResult:
    """What a call has led to.

    Attributes:
        text: for the model, bounded. A server wrote it, who may want the model to do something else.
        failed: whether it is an error.
        error: as the `error` of OpenAI's `mcp_call` has it; None: it is none.
    """

    text: str
    failed: bool = False
    error: Mapping[str, Any] | None = None


class McpServers:
    """The servers that requests may use.

    Args:
        configured: the operator's.
        limits: of each server, in each response.
        allow_private: whether all may be at addresses that are not public (TOOLS_PRIVATE_ADDRESSES).
    """

    def __init__(
        self, configured: Sequence[Server] = (), limits: Limits | None = None, *, allow_private: bool = False
    ) -> None:
        self.configured: Mapping[str, Server] = {server.label: server for server in configured}
        self._limits = limits or Limits()
        self._allow_private = allow_private
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        logging.getLogger("httpx2").setLevel(logging.WARNING)  # each request with its URL, which may have a secret

    def session(self, server: Server) -> McpSession:
        """The session of a response with a server. It connects when it is first used, and ends with its context."""
        return McpSession(server, self._limits, allow_private=self._allow_private or server.is_private)

    async def tools(self, server: Server) -> list[McpTool]:
        """What a server offers, in a session of its own.

        Raises:
            McpError: it cannot be used.
        """
        async with self.session(server) as session:
            return await session.tools()

    async def call(self, server: Server, name: str, arguments: Mapping[str, Any]) -> McpResult:
        """A call in a session of its own."""
        async with self.session(server) as session:
            return await session.call(name, arguments)


class McpSession:
    """A server, for one response.

    Args:
        server: whose tools.
        limits: how much it may take.
        allow_private: whether it may be at an address that is not public.

    Attributes:
        about: what the server says of itself, for the model, bounded; None: nothing so far.
    """

    def __init__(self, server: Server, limits: Limits, *, allow_private: bool) -> None:
        self.about: str | None = None
        self._server = server
        self._limits = limits
        self._allow_private = allow_private
        self._kinds: tuple[Transport, ...] = (
            (Transport.HTTP, Transport.SSE) if server.transport is Transport.AUTO else (server.transport,)
        )
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._tools: dict[str, McpTool] = {}
        self._is_left = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_left = True
        await self._disconnect()

    async def tools(self) -> list[McpTool]:
        """The tools that are offered: those that the operator and the request allow, with names and schemas to use.

        Raises:
            McpError: the server cannot be used, or offers more than a prompt can take.
        """
        listed = await self._run(self._list, self._limits.list_s)
        try:
            found = offered(listed, self._server, self._limits)
        except TooManyToolsError as error:
            raise McpError(f"The MCP server {self._server.label} failed: {error}.") from None
        except (ValueError, RecursionError):  # none is known
            raise McpError(f"The MCP server {self._server.label} failed: its tools cannot be read.") from None
        self._tools = {tool.name: tool for tool in found}
        return found

    async def call(self, name: str, arguments: Mapping[str, Any]) -> McpResult:
        """Calls a tool. Whether it is allowed, and approved, is the caller's to know.

        Args:
            name: of the tool, by which the server knows it.
            arguments: what the model has written.
        """
        work = partial(_call, name=name, arguments=dict(arguments))
        try:
            try:
                result = await self._run(work, self._limits.call_s)
            except SessionLostError:
                result = await self._run(work, self._limits.call_s)
        except McpError as error:
            return McpResult(str(error), failed=True, error=error.item())
        return self._read(name, result)

    def _read(self, name: str, result: types.CallToolResult) -> McpResult:
        text = self._shown(text_of(result.content, result.structured_content))
        if result.is_error:
            return _failed(text)
        tool = self._tools.get(name)
        if tool and (wrong := mismatch(tool.output_schema, result.structured_content)):
            return _failed(f"The server does not keep to its schema: {self._shown(wrong)}.\n{text}")
        return McpResult(text)

    def _shown(self, text: str) -> str:
        """A text of the server's as it may be read."""
        most = self._limits.result_chars
        kept = self._server.without_secrets(clean(text[: most + _MARGIN_CHARS]))
        return bounded(kept, most, len(text[most + _MARGIN_CHARS :])) or NOTHING

    async def _list(self, session: ClientSession) -> list[types.Tool]:
        about = session.instructions or ""
        self.about = cut(self._shown(about), self._limits.description_chars) if about.strip() else None
        return await _list(session, self._limits.pages)

    async def _run(self, work: Work[Any], limit_s: float) -> Any:
        async with self._connecting:
            connection = await self._connected()
        return await connection.run(work, limit_s)

    async def _connected(self) -> Connection:
        """A session that is open: a new one if there is none, or what there was has failed."""
        if self._connection is not None and self._connection.is_usable:
            return self._connection
        await self._disconnect()
        for kind in self._kinds:
            if self._is_left:
                raise McpError("The session with the MCP server has ended.")
            self._connection = Connection(self._server, kind, self._limits, allow_private=self._allow_private)
            try:
                await self._connection.opened()
            except McpError:
                status = self._connection.status
                await self._disconnect()
                if kind is self._kinds[-1] or status not in _NOT_HTTP:
                    raise
            else:
                self._kinds = (kind,)
                return self._connection
        raise AssertionError("there is at least one kind")

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


async def _list(session: ClientSession, most_pages: int) -> list[types.Tool]:
    """All pages of a server's tools."""
    tools: list[types.Tool] = []
    cursor: str | None = None
    for _ in range(most_pages):
        params = types.PaginatedRequestParams(cursor=cursor) if cursor else None
        page = await session.list_tools(params=params)
        tools += page.tools
        if len(tools) > _MOST_LISTED:
            raise McpError(f"its list has more than {_MOST_LISTED:,} tools")
        cursor = page.next_cursor
        if not cursor:
            return tools
    raise McpError(f"its list of tools has more than {most_pages} pages")


async def _call(session: ClientSession, *, name: str, arguments: dict[str, Any]) -> types.CallToolResult:
    return await session.call_tool(name, arguments)


def _failed(text: str) -> McpResult:
    content = [{"type": "text", "text": text}]
    return McpResult(text, failed=True, error={"type": "mcp_tool_execution_error", "content": content})
