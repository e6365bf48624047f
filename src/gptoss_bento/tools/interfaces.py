"""What the engine needs of the tools that run on the server, and which of them there are.

The engine calls them between two turns of the model. Each method ends within a second once its task is cancelled, and
leaves nothing behind that runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

Fields = Mapping[str, Any]


class Outcome(Protocol):
    """What a call has come to."""

    @property
    def text(self) -> str:
        """What the model reads."""
        ...

    @property
    def failed(self) -> bool:
        """Whether it has done what it was called for."""
        ...


class PythonTool(Protocol):
    """Runs code in containers."""

    def new_id(self) -> str:
        """An id that no container has."""
        ...

    async def run(self, container_id: str, code: str, owner: str = "") -> Outcome:
        """Runs code in the owner's container of this id, which keeps its variables. Code that raises is text."""
        ...


class Page(Outcome, Protocol):
    """What the model sees of a browser."""

    @property
    def action(self) -> Fields:
        """As `action` of OpenAI's `web_search_call`, with its sources."""
        ...


class Cited(Protocol):
    """A page as it is cited."""

    @property
    def url(self) -> str:
        """Its address."""
        ...

    @property
    def title(self) -> str:
        """What it calls itself."""
        ...


class BrowserSession(Protocol):
    """The browser of one response. Its methods are GPT-OSS's, by the model's names of arguments."""

    async def search(self, query: str, topn: int = 10, source: str | None = None) -> Page:
        """Shows the results of a search."""
        ...

    async def open(
        self,
        id: int | str = -1,  # noqa: A002  # the model's name
        cursor: int = -1,
        loc: int = -1,
        num_lines: int = -1,
        view_source: bool = False,
        source: str | None = None,
    ) -> Page:
        """Shows a page."""
        ...

    async def find(self, pattern: str, cursor: int = -1) -> Page:
        """Shows where a page has a text."""
        ...

    def citation(self, cursor: int, line: int | None = None) -> Cited | None:
        """What the model means by a mark such as 【3†L1-L4】; None: nothing that it has seen."""
        ...


class BrowserTool(Protocol):
    """Makes browsers."""

    @property
    def missing(self) -> frozenset[str]:
        """Of the functions of Harmony's browser those that it has not."""
        ...

    def session(self, allowed_domains: Sequence[str] = (), blocked_domains: Sequence[str] = ()) -> BrowserSession:
        """The browser of one response, which shows pages of these domains alone; empty: of all that it may."""
        ...


class McpTool(Protocol):
    """A tool of an MCP server, bounded for a prompt."""

    @property
    def name(self) -> str:
        """By which its server knows it."""
        ...

    @property
    def description(self) -> str:
        """For the model."""
        ...

    @property
    def input_schema(self) -> Fields:
        """Of its arguments."""
        ...

    @property
    def annotations(self) -> Fields:
        """What its server says of it, for the client."""
        ...


class McpServer(Protocol):
    """A server that a request has asked for."""

    @property
    def label(self) -> str:
        """By which model and client know it."""
        ...

    @property
    def description(self) -> str | None:
        """For the model."""
        ...


class McpSession(Protocol):
    """The connection of one response with one server, which is made when it is first used."""

    @property
    def about(self) -> str | None:
        """What the server says of itself, once it has listed its tools."""
        ...

    async def tools(self) -> Sequence[McpTool]:
        """The tools that the request may use. Raises ToolFailedError."""
        ...

    async def call(self, name: str, arguments: Fields) -> Outcome:
        """Calls one. An error of the server is text."""
        ...


class ApprovedCall(Protocol):
    """A call that waited for the client's word."""

    @property
    def id(self) -> str:
        """Of the item that asked for the word."""
        ...

    @property
    def server_label(self) -> str:
        """Of its server."""
        ...

    @property
    def name(self) -> str:
        """Of its tool."""
        ...

    @property
    def arguments(self) -> str:
        """As JSON, which is what will be called with."""
        ...


class Decision(Protocol):
    """What the client has answered."""

    @property
    def request(self) -> ApprovedCall:
        """The call."""
        ...

    @property
    def is_approved(self) -> bool:
        """Whether it is to be made."""
        ...

    def refusal(self) -> str:
        """What the model reads in place of a result, if it is not."""
        ...


class McpAccess(Protocol):
    """The MCP servers that requests may use."""

    def server(self, asked: Fields, place: str) -> McpServer:
        """The server that a tool of the type `mcp` means. Raises ToolRefusedError."""
        ...

    def session(self, server: Any) -> AbstractAsyncContextManager[McpSession]:
        """A connection with a server of `server`."""
        ...

    def needs_approval(self, tool: Any, server: Any) -> bool:
        """Whether the client must be asked before a call of a tool of such a server."""
        ...

    def decisions(self, items: Sequence[Fields]) -> Sequence[Decision]:
        """What the items of an input decide of calls that were not made yet. Raises ToolRefusedError."""
        ...


class ToolRefusedError(ValueError):
    """A request asks of a tool what cannot be.

    Attributes:
        field: the place in the request.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class ToolFailedError(Exception):
    """A tool cannot be used; the text is for the model and the client."""


@dataclass(frozen=True)
class HostedTools:
    """The tools that this process runs.

    Attributes:
        python: runs code; None: no tool of this process does.
        browser: searches and opens pages.
        mcp: calls MCP servers.
        call_timeout_s: seconds that one call of the browser or of an MCP server may take.
        turn_timeout_s: seconds that all calls of one response may take together.
        gives_way: names of tools that a server of TOOL_SERVER with the same name replaces; with another name, the start
            ends.
    """

    python: PythonTool | None = None
    browser: BrowserTool | None = None
    mcp: McpAccess | None = None
    call_timeout_s: float = 60.0
    turn_timeout_s: float = 600.0
    gives_way: frozenset[str] = frozenset()

    @property
    def names(self) -> frozenset[str]:
        """GPT-OSS's own tools among them, by its names."""
        own = {"python": self.python, "browser": self.browser}
        return frozenset(name for name, tool in own.items() if tool is not None)
