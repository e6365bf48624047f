"""Tools of /v1/responses that run on the server's side: vLLM 0.32 answers 200 without those that it does not have.

Wrappers of vLLM's functions; replacements.py applies them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from pydantic import BaseModel

from gptoss_bento.config.tool_server import REQUEST_TYPES
from gptoss_bento.engine.hosted import asking
from gptoss_bento.strict_json import shown

Render = Callable[..., Any]

_SERVERS = {kind: server for server, kind in REQUEST_TYPES.items()}
_OPTIONS: Mapping[str, Mapping[str, object]] = {
    "code_interpreter": {"container.file_ids": None, "container.memory_limit": "1g", "container.network_policy": None},
    "web_search_preview": {
        "user_location": None,
        "search_context_size": "medium",
        "search_content_types": ["text"],
        "filters": None,
    },
}
"""What a request can say of such a tool and vLLM hands to no server, with the value that is OpenAI's default."""
_VARIABLES = {"python": ("PYTHON_TOOL",), "browser": ("SEARCH_BACKEND",)}
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
        if found := _problem_of(f"tools[{number}]", tool, server, labels):
            return found
    if request.tools and request.tool_choice == "required" and all(map(_is_hosted, request.tools)):
        return "tool_choice", 'tool_choice "required" needs a function: nothing makes the model call a built-in tool.'
    return None


def _problem_of(place: str, tool: Any, server: Any, labels: Collection[str]) -> tuple[str, str] | None:
    if asking.runs(server, tool) and not (tool.type == "mcp" and tool.server_label in labels):
        return asking.problem(place, tool, server)
    if tool.type == "mcp" and tool.server_label not in labels:
        where = f"{place}.server_label"
        return where, (
            f"{where} {shown(tool.server_label)} is none that the operator lets in ({_LABELS}), and no server is "
            "called that the request names (MCP_SERVERS, MCP_REQUEST_SERVERS): call it yourself, and send its tools as "
            "functions."
        )
    kind = tool.server_label if tool.type == "mcp" else tool.type
    needed = _SERVERS.get(kind)
    if needed is None:
        return None
    if server is not None and server.has_tool(needed):
        return _without_effect(place, tool)
    where, variables = f"{place}.type", ", ".join((*_VARIABLES.get(needed, ()), "TOOL_SERVER"))
    return where, f"{where} {shown(kind)} needs a tool server named {needed}, which this service has not ({variables})."


def _without_effect(place: str, tool: Any) -> tuple[str, str] | None:
    for option, default in _OPTIONS.get(tool.type, {}).items():
        value = tool
        for name in option.split("."):
            value = getattr(value, name, None)
        if value and value != default and not _is_no_place(value):
            where = f"{place}.{option}"
            return where, f"{where} reaches no tool server, and would have no effect: leave it out."
    if isinstance(container := getattr(tool, "container", None), str):
        where = f"{place}.container"
        return where, f'{where} {shown(container)} is no container of this service: use {{"type": "auto"}}.'
    return None


def _is_no_place(value: Any) -> bool:
    """A user's location without a place, by which OpenAI's API is asked for none."""
    return isinstance(value, BaseModel) and not value.model_dump(exclude_none=True).keys() - {"type"}


def _is_hosted(tool: Any) -> bool:
    return tool.type == "mcp" or tool.type in _SERVERS
