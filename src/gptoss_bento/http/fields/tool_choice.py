"""`tool_choice` as an object: what vLLM 0.32 accepts and passes over is translated or refused. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptoss_bento.http.errors import FieldError
from gptoss_bento.http.paths import CHAT, RESPONSES
from gptoss_bento.strict_json import shown

_ALLOWED = "allowed_tools"
_MODES = ("auto", "required")


def allowed_tools(path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """A choice among some of the tools, as these tools alone and the mode as the choice.

    Raises:
        FieldError: it chooses a tool of another type than `function`, or one that is not among `tools`.
    """
    choice = body.get("tool_choice")
    if path not in (CHAT, RESPONSES) or not isinstance(choice, dict):
        return {}
    if choice.get("type") != _ALLOWED:
        _refuse_hosted(path, choice)
        return {}
    inside = choice.get(_ALLOWED) if path == CHAT else choice
    place = f"tool_choice.{_ALLOWED}" if path == CHAT else "tool_choice"
    if not isinstance(inside, dict) or inside.get("mode") not in _MODES:
        raise FieldError(f"{place}.mode", f'{place}.mode must be "auto" or "required".')
    return {"tools": _chosen(inside.get("tools"), body.get("tools"), place), "tool_choice": inside["mode"]}


def _refuse_hosted(path: str, choice: Mapping[str, Any]) -> None:
    kind = choice.get("type")
    if path == RESPONSES and kind not in ("function", "custom"):  # vLLM refuses the latter
        where = "tool_choice.type"
        raise FieldError(where, f'{where} must be "function" or "{_ALLOWED}", got {shown(kind)}.')


def _chosen(names: Any, tools: Any, place: str) -> list[Any]:
    """Those of the tools that are named, in their own order."""
    wanted = [_name(each) for each in names] if isinstance(names, list) else []
    known = {_name(tool): tool for tool in tools} if isinstance(tools, list) else {}
    missing = next((number for number, name in enumerate(wanted) if name is None or name not in known), None)
    if missing is not None or not wanted:
        where = f"{place}.tools" if missing is None else f"{place}.tools[{missing}]"
        raise FieldError(where, f"{where} must name a function of `tools`.")
    return [tool for name, tool in known.items() if name in wanted]


def _name(tool: Any) -> str | None:
    """That of a function, which chats have one level deeper."""
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None
