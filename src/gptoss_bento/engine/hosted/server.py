"""A tool server as vLLM knows it, of the tools that this process runs and of those of TOOL_SERVER."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from gptoss_bento.errors import EngineStartError
from gptoss_bento.tools.interfaces import HostedTools


class HostedServer:
    """In the place of vLLM's tool server. Its sessions of own tools are empty: a ToolTurn makes their calls.

    Args:
        tools: of this process.
        others: vLLM's own tool server, of TOOL_SERVER.

    Raises:
        EngineStartError: both have a tool, and neither gives way.
    """

    def __init__(self, tools: HostedTools, others: Any = None) -> None:
        both = {name for name in tools.names if others is not None and others.has_tool(name)}
        if clash := sorted(both - tools.gives_way):
            raise EngineStartError(
                f"The tool {clash[0]} is on, and TOOL_SERVER names a server of this name: unset one of them."
            )
        self.tools = tools
        self.own = tools.names - both
        self._others = others

    def has_tool(self, tool_name: str) -> bool:
        """Whether there is GPT-OSS's tool of this name."""
        return tool_name in self.own or (self._others is not None and self._others.has_tool(tool_name))

    def get_tool_description(self, tool_name: str, allowed_tools: list[str] | None = None) -> Any:
        """What the model reads of a tool; None if it has none."""
        from openai_harmony import ToolNamespaceConfig

        if tool_name not in self.own:
            return self._others.get_tool_description(tool_name, allowed_tools) if self._others is not None else None
        if tool_name == "python":
            return ToolNamespaceConfig.python()
        found = ToolNamespaceConfig.browser()
        missing = self.tools.browser.missing if self.tools.browser is not None else frozenset[str]()
        return found.model_copy(update={"tools": [each for each in found.tools if each.name not in missing]})

    def new_session(
        self, tool_name: str, session_id: str, headers: dict[str, str] | None = None
    ) -> AbstractAsyncContextManager[Any]:
        """A session of TOOL_SERVER's, or nothing."""
        if tool_name in self.own or self._others is None:
            return _no_session()
        opened: AbstractAsyncContextManager[Any] = self._others.new_session(tool_name, session_id, headers)
        return opened


@asynccontextmanager
async def _no_session() -> AsyncIterator[None]:
    yield None


def namespace(label: str, description: str | None, tools: Sequence[Any]) -> Any:
    """The tools of an MCP server as the model reads them.

    Args:
        label: of the server, by which the model calls them.
        description: of the server.
        tools: McpTools.
    """
    from openai_harmony import ToolDescription, ToolNamespaceConfig

    from gptoss_bento.http.json_schema.typescript import typescript

    described = [
        ToolDescription.new(tool.name, tool.description, parameters={"type": [typescript(dict(tool.input_schema))]})
        for tool in tools
    ]
    return ToolNamespaceConfig(name=label, description=description, tools=described)
