"""tools/mcp as the loop uses it: its servers for the tools `mcp` of requests, its errors as ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from gptoss_bento.tools.interfaces import ToolFailedError, ToolRefusedError
from gptoss_bento.tools.mcp import approval
from gptoss_bento.tools.mcp.request_server import RequestServerError, asked_server
from gptoss_bento.tools.mcp.server import McpTool, Server

if TYPE_CHECKING:
    from gptoss_bento.tools.mcp.servers import McpResult, McpServers, McpSession


class McpServersAccess:
    """The operator's servers, and those that requests bring.

    Args:
        servers: of this process.
        may_bring: whether requests may bring their own.
        allow_http: whether those may be without TLS.
    """

    def __init__(self, servers: McpServers, *, may_bring: bool, allow_http: bool) -> None:
        self._servers = servers
        self._may_bring = may_bring
        self._allow_http = allow_http

    def server(self, asked: Mapping[str, Any], place: str) -> Server:
        """The server that a tool means.

        Raises:
            ToolRefusedError: there is none, or a field is wrong.
        """
        options = {"may_bring": self._may_bring, "allow_http": self._allow_http}
        try:
            return asked_server(asked, place, self._servers.configured, **options)
        except RequestServerError as error:
            raise ToolRefusedError(error.field, str(error)) from None

    @asynccontextmanager
    async def session(self, server: Server) -> AsyncIterator[Session]:
        """A connection, which is made when it is first used."""
        async with self._servers.session(server) as session:
            yield Session(session)

    def needs_approval(self, tool: McpTool, server: Server) -> bool:
        """Whether the client must be asked before a call."""
        return approval.needs_approval(tool, server)

    def decisions(self, items: Sequence[Mapping[str, Any]]) -> Sequence[approval.Decision]:
        """What the items of an input decide of calls that were not made yet.

        Raises:
            ToolRefusedError: an item answers nothing that there is.
        """
        try:
            return approval.decisions(items)
        except approval.ApprovalError as error:
            # Without its number: here the input has the items before those of the request, too.
            raise ToolRefusedError("input", f"input: {error.name} {error}") from None


class Session:
    """One connection.

    Args:
        session: of tools/mcp.
    """

    def __init__(self, session: McpSession) -> None:
        self._session = session

    @property
    def about(self) -> str | None:
        """What the server says of itself."""
        return self._session.about

    async def tools(self) -> Sequence[McpTool]:
        """The tools that the request may use.

        Raises:
            ToolFailedError: the server cannot be used.
        """
        from gptoss_bento.tools.mcp.failures import McpError

        try:
            return await self._session.tools()
        except McpError as error:
            raise ToolFailedError(str(error)) from error

    async def call(self, name: str, arguments: Mapping[str, Any]) -> McpResult:
        """Calls a tool; an error of the server is text."""
        return await self._session.call(name, arguments)
