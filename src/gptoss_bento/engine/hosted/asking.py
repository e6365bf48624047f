"""From a request to the tools of its response: it is checked, and MCP servers are asked what they have."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gptoss_bento.engine.hosted.history import History, as_fields, container_in, is_hosted
from gptoss_bento.engine.hosted.options import (
    browser_problem,
    container_of,
    domains_of,
    label_problem,
    location_of,
    python_problem,
    results_of,
)
from gptoss_bento.engine.hosted.server import HostedServer
from gptoss_bento.engine.hosted.turn import Asked, Listed, Pending, ToolTurn
from gptoss_bento.engine.owner import current_owner
from gptoss_bento.strict_json import shown
from gptoss_bento.tools.interfaces import (
    Decision,
    McpAccess,
    McpServer,
    McpTool,
    ToolFailedError,
    ToolRefusedError,
)

logger = logging.getLogger(__name__)

TURN = "gptoss_bento_turn"
"""The attribute of vLLM's request that has the tools of its response."""

_OWN = {"code_interpreter": "python", "web_search_preview": "browser"}
_PROBLEMS = {"python": python_problem, "browser": browser_problem}
MOST_SERVERS = 16
"""Of a request: each is connected to before the model begins, and one request must not reach thousands."""
_UNLISTED = "The tools of this server could not be listed."


def turn_of(request: Any) -> ToolTurn | None:
    """The tools of a request's response; None: it asks for none that this process runs."""
    turn = getattr(request, TURN, None)
    return turn if isinstance(turn, ToolTurn) else None


def may_call(request: Any) -> bool:
    """Whether the model of a request may call a tool."""
    return request.tool_choice not in (None, "none")


def concerns(request: Any) -> bool:
    """Whether there is anything to do for a request: it has such tools, or items of earlier calls."""
    if any(tool.type != "function" for tool in request.tools):
        return True
    return isinstance(request.input, list) and any(map(is_hosted, request.input))


def runs(server: Any, tool: Any) -> bool:
    """Whether this process runs a tool of a request itself.

    Args:
        server: the tool server of vLLM's application.
        tool: as vLLM's request has it.
    """
    if not isinstance(server, HostedServer):
        return False
    return _OWN.get(tool.type) in server.own or (tool.type == "mcp" and server.tools.mcp is not None)


def problem(place: str, tool: Any, server: HostedServer) -> tuple[str, str] | None:
    """Which field of a tool that this process runs asks for what cannot be done, and the message."""
    if (name := _OWN.get(tool.type)) is not None:
        return _PROBLEMS[name](place, tool)
    if found := label_problem(place, tool.server_label):
        return found
    try:
        _server_of(place, tool, server)
    except ToolRefusedError as refused:
        return refused.field, str(refused)
    return None


def _server_of(place: str, tool: Any, server: HostedServer) -> McpServer:
    if server.tools.mcp is None:
        raise ToolRefusedError(place, f"{place}: this service calls no MCP servers.")
    return server.tools.mcp.server(tool.model_dump(mode="json", exclude_none=True), place)


async def prepare(request: Any, server: Any) -> None:
    """Gives a request the tools of its response, and puts messages in the place of earlier calls among its items.

    Args:
        request: vLLM's; what it asks for is possible.
        server: the tool server of vLLM's application.

    Raises:
        ToolRefusedError: it approves what it has no server for, or nothing that there is.
    """
    items = request.input if isinstance(request.input, list) else []
    mine = [(f"tools[{number}]", tool) for number, tool in enumerate(request.tools) if runs(server, tool)]
    servers = await _listed(mine, server)
    history = History(items, _decisions(items, servers, server))
    if any(map(is_hosted, items)):
        request.input = history.items
    if mine:
        asked = _asked(mine, items, server, servers, history.pending)
        asked = replace(asked, is_allowed=may_call(request), most_calls=request.max_tool_calls)
        setattr(request, TURN, ToolTurn(server.tools, asked))


def _asked(
    tools: Sequence[tuple[str, Any]],
    items: Sequence[Any],
    server: HostedServer,
    servers: Mapping[str, Listed],
    pending: Sequence[Pending],
) -> Asked:
    by_name = {name: tool for _, tool in tools if (name := _OWN.get(tool.type))}
    python, browser = by_name.get("python"), by_name.get("browser")
    container, session = "", None
    if python is not None and server.tools.python is not None:
        earlier = container_in([as_fields(item) for item in items if is_hosted(item)])
        container = container_of(python) or earlier or server.tools.python.new_id()
    if browser is not None and server.tools.browser is not None:
        session = server.tools.browser.session(**domains_of(browser))
    return Asked(
        names=frozenset(by_name),
        container_id=container,
        browser=session,
        results=results_of(browser),
        location=location_of(browser),
        servers=servers,
        pending=pending,
        owner=current_owner(),
    )


def _decisions(items: Sequence[Any], servers: Mapping[str, Listed], server: Any) -> Sequence[Decision]:
    """What the client has decided of calls that wait.

    Raises:
        ToolRefusedError: as of `prepare`.
    """
    hosted = [as_fields(item) if is_hosted(item) else {} for item in items]
    if not any(item.get("type") == "mcp_approval_response" for item in hosted):
        return ()
    if not isinstance(server, HostedServer) or server.tools.mcp is None:
        return ()
    found = server.tools.mcp.decisions(hosted)
    for each in found:
        if each.is_approved and each.request.server_label not in servers:
            label = shown(each.request.server_label)
            raise ToolRefusedError(
                "tools", f"tools has no MCP server {label}, whose call the input approves: send it again."
            )
    return found


async def _listed(tools: Sequence[tuple[str, Any]], server: Any) -> dict[str, Listed]:
    """The MCP servers of a request with their tools, in its order.

    Raises:
        ToolRefusedError: two have one label, or they are too many.
    """
    asked: dict[str, McpServer] = {}
    for place, tool in tools:
        if tool.type == "mcp":
            if tool.server_label in asked:
                where = f"{place}.server_label"
                raise ToolRefusedError(where, f"{where}: another server is {shown(tool.server_label)}, too.")
            if len(asked) == MOST_SERVERS:
                raise ToolRefusedError(place, f"{place}: a request may have {MOST_SERVERS} MCP servers.")
            asked[tool.server_label] = _server_of(place, tool, server)
    if not asked:
        return {}
    limit_s = min(server.tools.call_timeout_s, server.tools.turn_timeout_s)
    made = await asyncio.gather(*(_list(server.tools.mcp, each, limit_s) for each in asked.values()))
    return dict(zip(asked, made, strict=True))


async def _list(access: McpAccess, server: McpServer, limit_s: float) -> Listed:
    tools: Sequence[McpTool] = ()
    error, about = None, server.description
    try:
        async with asyncio.timeout(limit_s), access.session(server) as session:
            tools = await session.tools()
            about = about or session.about
    except ToolFailedError as failed:
        error = str(failed)
    except TimeoutError:
        error = f"{_UNLISTED} It took more than {limit_s:g} s."
    except Exception:
        logger.exception("the tools of the MCP server %s", server.label)
        error = _UNLISTED
    return Listed(server, {tool.name: tool for tool in tools}, _list_item(server.label, tools, error), about)


def _list_item(label: str, tools: Sequence[McpTool], error: str | None) -> dict[str, Any]:
    shown_tools = [
        {
            "name": tool.name,
            "description": tool.description,
            "input_schema": dict(tool.input_schema),
            "annotations": dict(tool.annotations),
        }
        for tool in tools
    ]
    made = {"id": f"mcpl_{uuid.uuid4().hex}", "type": "mcp_list_tools", "server_label": label, "tools": shown_tools}
    return made | ({"error": error} if error else {})
