"""Tools that run on the server, for tests: what they return is set, and what they were called with is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from gptoss_bento.tools.interfaces import ToolRefusedError

Fields = Mapping[str, Any]


@dataclass
class FakeOutcome:
    """What a call comes to."""

    text: str
    failed: bool = False
    action: Fields = field(default_factory=dict)


@dataclass
class FakePython:
    """Returns `4`, or what `answer` makes of the code.

    Attributes:
        runs: containers and code.
        owners: of those.
        ended: how many runs were cancelled.
    """

    answer: Callable[[str], Awaitable[FakeOutcome]] | None = None
    runs: list[tuple[str, str]] = field(default_factory=list)
    owners: list[str] = field(default_factory=list)
    ended: int = 0

    def new_id(self) -> str:
        return "cntr_0123456789abcdef"

    async def run(self, container_id: str, code: str, owner: str = "") -> FakeOutcome:
        self.runs.append((container_id, code))
        self.owners.append(owner)
        if self.answer is None:
            return FakeOutcome("4")
        try:
            return await self.answer(code)
        except asyncio.CancelledError:
            self.ended += 1
            raise


@dataclass(frozen=True)
class FakeCited:
    """A page as it is cited."""

    url: str = "https://example.com/a"
    title: str = "A page"


@dataclass
class FakeBrowser:
    """Finds one page, whose number is 0, and opens it.

    Attributes:
        sessions: the domains of each.
        calls: functions and arguments.
        missing: of its functions.
    """

    sessions: list[dict[str, Sequence[str]]] = field(default_factory=list)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    missing: frozenset[str] = frozenset()

    def session(self, allowed_domains: Sequence[str] = (), blocked_domains: Sequence[str] = ()) -> FakeBrowser:
        self.sessions.append({"allowed_domains": allowed_domains, "blocked_domains": blocked_domains})
        return self

    async def search(self, query: str, topn: int = 10, source: str | None = None) -> FakeOutcome:
        self.calls.append(("search", {"query": query, "topn": topn, "source": source}))
        sources = [{"type": "url", "url": FakeCited().url}]
        action = {"type": "search", "query": query, "queries": [query], "sources": sources}
        return FakeOutcome("[0] A page\nL0: It rains.", action=action)

    async def open(
        self,
        id: int | str = -1,  # noqa: A002  # the model's name
        cursor: int = -1,
        loc: int = -1,
        num_lines: int = -1,
        view_source: bool = False,
        source: str | None = None,
    ) -> FakeOutcome:
        self.calls.append(("open", {"id": id, "cursor": cursor, "loc": loc, "num_lines": num_lines}))
        del view_source, source
        return FakeOutcome("[1] A page\nL0: It rains.", action={"type": "open_page", "url": FakeCited().url})

    async def find(self, pattern: str, cursor: int = -1) -> FakeOutcome:
        self.calls.append(("find", {"pattern": pattern, "cursor": cursor}))
        action = {"type": "find_in_page", "pattern": pattern, "url": FakeCited().url}
        return FakeOutcome("[2] rains", action=action)

    def citation(self, cursor: int, line: int | None = None) -> FakeCited | None:
        del line
        return FakeCited() if cursor <= len(self.calls) else None


@dataclass(frozen=True)
class FakeTool:
    """A tool of an MCP server."""

    name: str = "now"
    description: str = "The weather now."
    input_schema: Fields = field(
        default_factory=lambda: {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    )
    annotations: Fields = field(default_factory=dict)


@dataclass(frozen=True)
class FakeServer:
    """An MCP server that a request names."""

    label: str
    description: str | None = None


@dataclass(frozen=True)
class FakeDecision:
    """What a client has answered."""

    request: Any
    is_approved: bool

    def refusal(self) -> str:
        return "The user did not approve this call."


@dataclass(frozen=True)
class FakeRequest:
    """A call that waits."""

    id: str
    server_label: str
    name: str
    arguments: str


@dataclass
class FakeMcp:
    """Servers with one tool, `now`; their label does not matter.

    Attributes:
        fails: raised where tools are listed.
        asks: whether calls need an approval.
        answer: makes a result.
        open: connections that there are.
        calls: labels, tools and arguments.
    """

    fails: Exception | None = None
    asks: bool = False
    answer: Callable[[], Awaitable[FakeOutcome]] | None = None
    open: int = 0
    calls: list[tuple[str, str, Fields]] = field(default_factory=list)

    def server(self, asked: Fields, place: str) -> FakeServer:
        if asked["server_label"] == "unknown":
            raise ToolRefusedError(f"{place}.server_label", "There is no such server.")
        return FakeServer(asked["server_label"], asked.get("server_description"))

    def session(self, server: Any) -> AbstractAsyncContextManager[FakeSession]:
        return self._connected(server)

    @asynccontextmanager
    async def _connected(self, server: Any) -> AsyncIterator[FakeSession]:
        self.open += 1
        try:
            yield FakeSession(self, server.label)
        finally:
            self.open -= 1

    def needs_approval(self, tool: Any, server: Any) -> bool:
        del tool, server
        return self.asks

    def decisions(self, items: Sequence[Fields]) -> list[FakeDecision]:
        listed = list(items)
        asked = {each["id"]: each for each in listed if each.get("type") == "mcp_approval_request"}
        made = {each.get("approval_request_id") for each in listed if each.get("type") == "mcp_call"}
        answers = [each for each in listed if each.get("type") == "mcp_approval_response"]
        return [
            FakeDecision(_request(asked[each["approval_request_id"]]), each["approve"])
            for each in answers
            if each["approval_request_id"] not in made
        ]


def _request(item: Fields) -> FakeRequest:
    return FakeRequest(item["id"], item["server_label"], item["name"], item["arguments"])


@dataclass(frozen=True)
class FakeSession:
    """A connection."""

    mcp: FakeMcp
    label: str
    about: str | None = "Knows the weather."

    async def tools(self) -> list[FakeTool]:
        if self.mcp.fails:
            raise self.mcp.fails
        return [FakeTool()]

    async def call(self, name: str, arguments: Fields) -> FakeOutcome:
        self.mcp.calls.append((self.label, name, arguments))
        return await self.mcp.answer() if self.mcp.answer else FakeOutcome("sunny")
