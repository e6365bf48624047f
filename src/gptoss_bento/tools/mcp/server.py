"""What is known of an MCP server before it is asked, and how much it may take. Pure.

Source: the tool `mcp` of OpenAI's Responses API, for which tools are offered and which calls need an approval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

_SHORTEST_SECRET = 6  # what is shorter occurs in texts by chance
_HIDDEN = "***"


class Transport(StrEnum):
    """How a server speaks. `auto` tries streamable HTTP, then SSE, as the protocol has it for unknown servers."""

    AUTO = "auto"
    HTTP = "http"
    SSE = "sse"


@dataclass(frozen=True)
class McpTool:
    """A tool as its server lists it, bounded for a prompt.

    Attributes:
        name: by which the server knows it: letters, digits, `_`, `-` and `.`, 128 at most.
        description: for the model.
        input_schema: of the arguments, an object, for the model; see schema.py.
        listed_schema: the same as the server has it, for the client, where it is not too long.
        annotations: what the server says of the tool, for the client.
        output_schema: what the server says that it returns; None: nothing.
    """

    name: str
    description: str
    input_schema: Mapping[str, Any]
    listed_schema: Mapping[str, Any] = field(default_factory=dict)
    annotations: Mapping[str, Any] = field(default_factory=dict)
    output_schema: Mapping[str, Any] | None = None

    @property
    def is_read_only(self) -> bool:
        """Whether the server says that it changes nothing."""
        return self.annotations.get("readOnlyHint") is True


@dataclass(frozen=True)
class ToolFilter:
    """Some tools of a server.

    Attributes:
        tool_names: their names; None: any.
        read_only: whether they change nothing, by what the server says; None: either.
    """

    tool_names: frozenset[str] | None = None
    read_only: bool | None = None

    def matches(self, tool: McpTool) -> bool:
        """Whether a tool is one of them."""
        named = self.tool_names is None or tool.name in self.tool_names
        return named and (self.read_only is None or tool.is_read_only == self.read_only)


@dataclass(frozen=True)
class ApprovalFilter:
    """Tools whose calls need an approval each time, and tools whose calls need none."""

    always: ToolFilter | None = None
    never: ToolFilter | None = None


Approval = Literal["always", "never"] | ApprovalFilter
"""What one side, the operator or the request, says of approvals."""


@dataclass(frozen=True)
class Server:
    """An MCP server. Neither its headers nor its URL are shown: both may have secrets.

    Attributes:
        label: by which the model and the client know it.
        url: of its endpoint.
        transport: how it speaks.
        headers: sent with each request.
        allowed_tools: a tool is offered if all of these match it; none: all are.
        require_approval: what each side that says anything says; see approval.py.
        description: for the model, in place of what the server says of itself.
        is_private: it is the operator's own, and may be in a private network.
        is_operators: it is of the operator's file, not of a request.
    """

    label: str
    url: str = field(repr=False)
    transport: Transport = Transport.AUTO
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    allowed_tools: tuple[ToolFilter, ...] = ()
    require_approval: tuple[Approval, ...] = ()
    description: str | None = None
    is_private: bool = False
    is_operators: bool = False

    def allows(self, tool: McpTool) -> bool:
        """Whether a tool is offered."""
        return all(each.matches(tool) for each in self.allowed_tools)

    def without_secrets(self, text: str) -> str:
        """A text of the server's, or about it, in which no value of its headers and its URL's query is left."""
        for secret in sorted(self._secrets(), key=len, reverse=True):
            text = text.replace(secret, _HIDDEN)
        return text

    def _secrets(self) -> set[str]:
        values = [*self.headers.values(), *(value for _, value in parse_qsl(urlsplit(self.url).query))]
        parts = {part for value in values for part in (value, value.rpartition(" ")[2])}  # `Bearer` is none
        return {part for part in parts if len(part) >= _SHORTEST_SECRET}


@dataclass(frozen=True)
class Limits:
    """How much one server may take, in a response.

    Attributes:
        open_s: seconds for the connection and the handshake.
        list_s: seconds for all pages of its tools.
        call_s: seconds for one call.
        close_s: seconds for each step of an end. A cancellation has three of them and must be over within a second.
        answer_bytes: of one HTTP answer, or of one event of a stream; over SSE it is the client's own bound, the same.
        session_bytes: of all that it sends.
        session_requests: HTTP requests to it; a server can ask the client to come again.
        pages: of its list of tools.
        tools: offered to the model.
        description_chars, schema_chars: of one tool; what is longer is cut, and a schema is simplified.
        prompt_chars: names, descriptions and schemas of all tools together.
        result_chars: of a result, as the model reads it.
    """

    open_s: float = 15.0
    list_s: float = 15.0
    call_s: float = 60.0
    close_s: float = 0.3
    answer_bytes: int = 1024 * 1024
    session_bytes: int = 32 * 1024 * 1024
    session_requests: int = 400
    pages: int = 20
    tools: int = 128
    description_chars: int = 2_000
    schema_chars: int = 8_000
    prompt_chars: int = 120_000
    result_chars: int = 40_000
