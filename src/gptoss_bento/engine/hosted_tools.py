"""Tools of /v1/responses that run on the server's side: vLLM 0.32 answers 200 without those that it does not have.

Wrappers of vLLM's functions; replacements.py applies them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from gptoss_bento.config.tool_server import REQUEST_TYPES
from gptoss_bento.strict_json import shown

Render = Callable[..., Any]

_SERVERS = {kind: server for server, kind in REQUEST_TYPES.items()}
_LABELS = "VLLM_GPT_OSS_SYSTEM_TOOL_MCP_LABELS"


def refused(render: Render, labels: Callable[[], Collection[str]]) -> Render:
    """Renders no request that asks for a tool which no tool server has.

    Args:
        render: vLLM's method of its renderer.
        labels: the labels with which tools of the type `mcp` mean one of the built-in tools; vLLM's own setting.
    """

    def rendered(renderer: Any, request: Any, **history: Any) -> Any:
        if found := problem(request, history.get("tool_server"), labels()):
            place, message = found
            return renderer.create_error_response(message, err_type="invalid_request_error", param=place)
        return render(renderer, request, **history)

    return rendered


def problem(request: Any, server: Any, labels: Collection[str]) -> tuple[str, str] | None:
    """Which field asks for what cannot be done, and the message; None if none does."""
    for number, tool in enumerate(request.tools):
        if found := _missing(f"tools[{number}]", tool, server, labels):
            return found
    if request.tools and request.tool_choice == "required" and all(map(_is_hosted, request.tools)):
        return "tool_choice", 'tool_choice "required" needs a function: nothing makes the model call a built-in tool.'
    return None


def _missing(place: str, tool: Any, server: Any, labels: Collection[str]) -> tuple[str, str] | None:
    if tool.type == "mcp" and tool.server_label not in labels:
        where = f"{place}.server_label"
        return where, (
            f"{where} {shown(tool.server_label)} is none that the operator lets in ({_LABELS}), and no server is "
            "called that the request names: call it yourself, and send its tools as functions."
        )
    kind = tool.server_label if tool.type == "mcp" else tool.type
    needed = _SERVERS.get(kind)
    if needed is None or (server is not None and server.has_tool(needed)):
        return None
    where = f"{place}.type"
    return where, f"{where} {shown(kind)} needs a tool server named {needed}, which this service has not (TOOL_SERVER)."


def _is_hosted(tool: Any) -> bool:
    return tool.type == "mcp" or tool.type in _SERVERS
