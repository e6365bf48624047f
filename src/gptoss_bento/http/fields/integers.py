"""Integers in a request that are too large for a message to the engine's process. Pure.

The engine's client keeps a request before it sends it; where it cannot send it, that request stays there for ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gptoss_bento.http.paths import COMPLETIONS
from gptoss_bento.strict_json import shown, shown_name

_LARGEST = 2**63 - 1  # the engine's process receives no larger integer: MessagePack has none
# What the engine gets as text or tokens, whatever is in it.
_BECOMES_TEXT = frozenset({"messages", "input", "previous_input_messages", "system", "prompt", "tools", "functions"})
# Of chats and responses the engine gets the text of a schema; of completions the schema itself.
_HAS_SCHEMA = frozenset({"response_format", "text", "output_config", "structured_outputs", "guided_json"})


def too_large(path: str, name: str, value: Any) -> tuple[str, str] | None:
    """The place of an integer beyond 64 bits, and what is wrong with it.

    Args:
        path: the engine's route.
        name: of the field.
        value: of the field, which is searched through.
    """
    inner = name not in _BECOMES_TEXT and (path == COMPLETIONS or name.partition(".")[0] not in _HAS_SCHEMA)
    for where, found in _integers(shown_name(name), value) if inner else [(shown_name(name), value)]:
        if isinstance(found, int) and not -_LARGEST <= found <= _LARGEST:
            return where, f"{where} must be a number of at most 64 bits, got {shown(found)}"
    return None


def _integers(name: str, value: Any) -> Iterator[tuple[str, int]]:
    waiting = [(name, value)]  # no recursion: a client decides how deep it is
    while waiting:
        where, found = waiting.pop()
        if isinstance(found, int):
            yield where, found
        elif isinstance(found, Mapping):
            waiting += [(f"{where}.{shown_name(key)}", inner) for key, inner in found.items() if _is_searched(inner)]
        elif isinstance(found, list):
            waiting += [(f"{where}[{number}]", inner) for number, inner in enumerate(found) if _is_searched(inner)]


def _is_searched(value: Any) -> bool:
    """No small integer and no text, of which there may be many."""
    return isinstance(value, Mapping | list) or (isinstance(value, int) and not -_LARGEST <= value <= _LARGEST)
