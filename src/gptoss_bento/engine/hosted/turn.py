"""The tools of one response: which of the model's calls are theirs, and what comes of each, within bounds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from gptoss_bento.engine.hosted import metrics
from gptoss_bento.engine.hosted.calls import ApprovalCall, BrowserCall, Call, McpCall, PythonCall, Result, arguments_of
from gptoss_bento.engine.hosted.messages import result_message, text_of
from gptoss_bento.tools.interfaces import (
    BrowserSession,
    Cited,
    HostedTools,
    McpServer,
    McpSession,
    McpTool,
    ToolFailedError,
)

logger = logging.getLogger(__name__)

NO_OBJECT = "Error: the arguments of this call are no JSON object. Send them again."
_BROKEN = "Error: the tool failed. Do not call it again in the same way."

_ARGUMENTS: Mapping[str, tuple[tuple[str, ...], str | None]] = {
    "search": (("query", "topn", "source"), "query"),
    "open": (("id", "cursor", "loc", "num_lines", "view_source", "source"), None),
    "find": (("pattern", "cursor"), "pattern"),
}
"""What the functions of the browser take, and what each needs."""


class Room(Protocol):
    """What the context of a response has room for."""

    @property
    def is_full(self) -> bool:
        """Whether there is none for a result and an answer."""
        ...

    def __call__(self, text: str) -> str:
        """A text, or its beginning with a note."""
        ...


class _Endless:
    is_full = False

    def __call__(self, text: str) -> str:
        return text


@dataclass(frozen=True)
class Listed:
    """An MCP server of the request, and its tools.

    Attributes:
        server: as it was asked for.
        tools: by name; none if they could not be listed.
        item: `mcp_list_tools`.
        about: what the server is for, as the model reads it.
    """

    server: McpServer
    tools: Mapping[str, McpTool]
    item: Mapping[str, Any]
    about: str | None = None


@dataclass(frozen=True)
class Pending:
    """A call of an earlier response that the client has approved.

    Attributes:
        message: the model's, which is among those of the prompt.
        call: what will be made of it.
    """

    message: Any
    call: McpCall


@dataclass(frozen=True)
class Asked:
    """What a request asks of the tools.

    Attributes:
        names: of GPT-OSS's own tools that this process runs for it.
        container_id: of its Python.
        browser: of this response.
        results: that a search shows, where the model asks for no number.
        location: where the user is, for the model.
        servers: by label.
        pending: calls that are made before the model goes on.
        owner: whose the request is.
        is_allowed: whether the model may call any.
        most_calls: that may be made in this response; None: any number.
    """

    names: frozenset[str] = frozenset()
    container_id: str = ""
    browser: BrowserSession | None = None
    results: int = 10
    location: str | None = None
    servers: Mapping[str, Listed] = field(default_factory=dict)
    pending: Sequence[Pending] = ()
    owner: str = ""
    is_allowed: bool = True
    most_calls: int | None = None


class ToolTurn:
    """From the request to the end of its response.

    Args:
        tools: of this process.
        asked: of them.
        clock: of seconds.
    """

    def __init__(self, tools: HostedTools, asked: Asked, clock: Callable[[], float] = time.monotonic) -> None:
        self._tools = tools
        self._asked = asked
        self._clock = clock
        self._calls: dict[int, tuple[Any, Call]] = {}  # the message is kept, so that its id is no other's
        self._connections = AsyncExitStack()
        self._sessions: dict[str, McpSession] = {}
        self._spent_s = 0.0
        self._refusals = 0
        self._made_calls = 0
        self._room: Room = _Endless()
        self.current: Call | None = None
        """A call whose end has no events yet, for streams."""
        self.is_open = False
        """Whether its connections end with a response that runs."""
        self._has_first_items = True
        for each in asked.pending:
            each.call.write(text_of(each.message))
            self._calls[id(each.message)] = (each.message, each.call)

    def start(self, room: Room) -> Self:
        """The response begins, in a context that has this room."""
        self._room = room
        return self

    def show(self, call: Call | None) -> None:
        """Makes this the call whose end has no events yet."""
        self.current = call

    async def __aenter__(self) -> Self:
        self.is_open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connections.aclose()

    @property
    def lists(self) -> list[dict[str, Any]]:
        """The items `mcp_list_tools`, which come first."""
        return [dict(each.item) for each in self._asked.servers.values()]

    def take_first_items(self) -> list[dict[str, Any]]:
        """The items that come before those of the model's messages, once."""
        if not self._has_first_items:
            return []
        self._has_first_items = False
        return [*self.lists, *(each.call.item for each in self.pending)]

    @property
    def servers(self) -> Sequence[Listed]:
        """The MCP servers of the request."""
        return list(self._asked.servers.values())

    @property
    def location(self) -> str | None:
        """Where the user is, for the model."""
        return self._asked.location

    @property
    def pending(self) -> Sequence[Pending]:
        """Calls that are made before the model goes on."""
        return self._asked.pending

    def cited(self, cursor: int, line: int | None) -> Cited | None:
        """The page that the model means by a number, and the first line that it names."""
        browser = self._asked.browser
        return browser.citation(cursor, line) if browser is not None else None

    def handles(self, recipient: str | None) -> bool:
        """Whether a message to this recipient is a call of these tools."""
        return recipient is not None and self._kind(recipient) is not None

    def new_call(self, recipient: str) -> Call:
        """The call that a message to this recipient begins."""
        kind, name = self._kind(recipient) or ("", "")
        if kind == "python":
            return PythonCall(self._asked.container_id)
        if kind == "browser":
            return BrowserCall(name)
        listed = self._asked.servers[kind]
        tool = listed.tools.get(name)
        if tool is not None and self._tools.mcp is not None and self._tools.mcp.needs_approval(tool, listed.server):
            return ApprovalCall(kind, name)
        return McpCall(kind, name)

    def register(self, message: Any, call: Call) -> None:
        """The call of a message that is complete."""
        self._calls[id(message)] = (message, call)

    def call_of(self, message: Any) -> Call | None:
        """The call that a message is, if it is one of these tools."""
        if (known := self._calls.get(id(message))) is not None:
            return known[1]
        if message.author.role != "assistant" or not self.handles(message.recipient):
            return None
        call = self.new_call(message.recipient)
        call.write(text_of(message))
        self.register(message, call)
        return call

    def completed(self, message: Any, call: Call | None, finish_reason: str | None) -> Call:
        """The call of a message that is complete, or was cut: half a call is no question for the client.

        Args:
            message: the call.
            call: that its first token has started, if it had a text.
            finish_reason: of the model's output.
        """
        made = call or self.new_call(message.recipient)
        if isinstance(made, ApprovalCall) and not self._is_whole(finish_reason):
            made = McpCall(made.label, made.name)
        made.write(text_of(message))
        self.register(message, made)
        return made

    def _is_whole(self, finish_reason: str | None) -> bool:
        return finish_reason != "length" and self._asked.is_allowed

    def may_call(self, message: Any, finish_reason: str | None) -> bool:
        """Whether the response goes on with a result of this call.

        Args:
            message: the call.
            finish_reason: of the model's output; at its limit a call may be half of one.
        """
        known = self._calls.get(id(message))
        call = known[1] if known is not None else self.completed(message, None, finish_reason)
        is_question = isinstance(call, ApprovalCall)
        return not is_question and self._is_whole(finish_reason) and not self._room.is_full and self._refusals == 0

    def will_run(self, message: Any, finish_reason: str | None) -> bool:
        """Whether no bound stops a call: what it may not do for a bound, the model reads."""
        most = self._asked.most_calls
        has_time = self._spent_s < self._tools.turn_timeout_s
        return self.may_call(message, finish_reason) and has_time and (most is None or self._made_calls < most)

    async def results(self, message: Any) -> list[Any]:
        """Makes a call, and returns the message that answers it."""
        call = self.call_of(message) or self.new_call(message.recipient)
        call.write(text_of(message))
        result = await self._bounded(call)
        self._made_calls += not any(call is each.call for each in self.pending)
        call.end(result)
        return [result_message(message, self._room(result.text))]

    async def _bounded(self, call: Call) -> Result:
        left = self._tools.turn_timeout_s - self._spent_s
        if left <= 0:
            self._refusals += 1
            metrics.count(_tool(call), "refused", 0.0)
            text = (
                f"The {self._tools.turn_timeout_s:g} s for tools in this response are over, and this call was not made."
            )
            return Result(f"{text} Answer without tools.", failed=True, was_made=False)
        started, end = self._clock(), "stopped"
        limit = left if isinstance(call, PythonCall) else min(left, self._tools.call_timeout_s)
        try:
            async with asyncio.timeout(limit):
                result = await self._made(call)
            end = "failed" if result.failed else "completed"
        except TimeoutError:
            result = Result(f"Error: the call was stopped after {limit:g} s.", failed=True)
        finally:
            seconds = self._clock() - started
            self._spent_s += seconds
            metrics.count(_tool(call), end, seconds)
        return result

    async def _made(self, call: Call) -> Result:
        try:
            if isinstance(call, PythonCall) and self._tools.python is not None:
                outcome = await self._tools.python.run(call.container_id, call.text, self._asked.owner)
                return Result(outcome.text, outcome.failed)
            if isinstance(call, BrowserCall):
                return await self._browse(call)
            return await self._ask(call) if isinstance(call, McpCall) else Result(_BROKEN, failed=True)
        except ToolFailedError as error:
            return Result(f"Error: {error}", failed=True)
        except Exception as error:
            logger.exception("the tool %s failed: %s", _tool(call), error)
            return Result(_BROKEN, failed=True)

    async def _browse(self, call: BrowserCall) -> Result:
        if call.function not in _ARGUMENTS:
            known = ", ".join(_ARGUMENTS)
            return Result(f"Error: the browser has no function {call.function}; it has {known}.", failed=True)
        if (asked := arguments_of(call.text)) is None:
            return Result(NO_OBJECT, failed=True)
        names, needed = _ARGUMENTS[call.function]
        if needed and needed not in asked:
            return Result(f"Error: {call.function} needs {needed}.", failed=True)
        given = {name: asked[name] for name in names if asked.get(name) is not None}
        if call.function == "search":
            given.setdefault("topn", self._asked.results)
        page = await getattr(self._asked.browser, call.function)(**given)
        return Result(page.text, page.failed, page.action)

    async def _ask(self, call: McpCall) -> Result:
        tools = self._asked.servers[call.label].tools
        if call.name not in tools:
            known = ", ".join(tools) or "none"
            return Result(f"Error: {call.label} has no tool {call.name}; it has {known}.", failed=True)
        if (asked := arguments_of(call.text)) is None:
            return Result(NO_OBJECT, failed=True)
        outcome = await (await self._session(call.label)).call(call.name, asked)
        return Result(outcome.text, outcome.failed, error=getattr(outcome, "error", None))

    async def _session(self, label: str) -> McpSession:
        """The connection with a server, which is made at the first call."""
        if (known := self._sessions.get(label)) is not None:
            return known
        if self._tools.mcp is None:
            raise ToolFailedError("this service calls no MCP servers.")
        session = await self._connections.enter_async_context(
            self._tools.mcp.session(self._asked.servers[label].server)
        )
        await session.tools()  # results are held to what the server says of them in this connection
        self._sessions[label] = session
        return session

    def _kind(self, recipient: str) -> tuple[str, str] | None:
        """Whose function is called, and which: `python`, `browser`, or the label of an MCP server."""
        owner, dot, name = recipient.partition(".")
        if dot and owner in self._asked.servers:  # labels have no dots, and may begin as the name of a tool does
            return owner, name
        if recipient.startswith("python") and "python" in self._asked.names:
            return "python", ""
        return (owner, name) if owner == "browser" and owner in self._asked.names else None


def _tool(call: Call) -> str:
    """As metrics name it."""
    return "python" if isinstance(call, PythonCall) else "browser" if isinstance(call, BrowserCall) else "mcp"
