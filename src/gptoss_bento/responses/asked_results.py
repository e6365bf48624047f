"""What an item of a tool that ran on the server has for a client that asked for it in `include`, and else not. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

OUTPUTS, SOURCES = "code_interpreter_call.outputs", "web_search_call.action.sources"


def as_asked(item: Mapping[str, Any], words: Collection[Any]) -> Mapping[str, Any]:
    """An item of vLLM's without the results that its client did not ask for.

    Args:
        item: of an answer.
        words: of `include`.
    """
    kind = item.get("type")
    if kind == "code_interpreter_call" and OUTPUTS not in words:
        return {**item, "outputs": None}
    if kind == "web_search_call" and SOURCES not in words and isinstance(action := item.get("action"), Mapping):
        return {**item, "action": {name: value for name, value in action.items() if name != "sources"}}
    return item
