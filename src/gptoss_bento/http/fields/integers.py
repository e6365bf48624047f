"""Integers in a request that are too large for a message to the engine's process. Pure.

The engine's client keeps a request before it sends it; where it cannot send it, that request stays there for ever.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from gptoss_bento.http.paths import COMPLETIONS, COUNT_TOKENS, INPUT_TOKENS, MESSAGES, RESPONSES
from gptoss_bento.strict_json import shown, shown_name

_LARGEST = 2**63 - 1  # the engine's process receives no larger integer: MessagePack has none
# What the engine gets as text or tokens, whatever is in it.
_BECOMES_TEXT = frozenset({"messages", "input", "previous_input_messages", "system", "prompt", "tools", "functions"})
# Of chats and responses the engine gets the text of a schema; of completions the schema itself.
_IS_SCHEMA = frozenset({"response_format", "structured_outputs", "guided_json", "text", "output_config"})
# Of these options it gets the other ones as they are.
_HAS_SCHEMA = frozenset(
    {(RESPONSES, "text"), (INPUT_TOKENS, "text"), (MESSAGES, "output_config"), (COUNT_TOKENS, "output_config")}
)


def too_large(path: str, name: str, value: Any) -> tuple[str, str] | None:
    """The place of an integer beyond 64 bits, and what is wrong with it.

    Args:
        path: the engine's route.
        name: of the field.
        value: of the field, which is searched through.
    """
    for where, found in _integers(shown_name(name), value, _levels(path, name)):
        if not -_LARGEST <= found <= _LARGEST:
            return where, f"{where} must be a number of at most 64 bits, got {shown(found)}"
    return None


def _levels(path: str, name: str) -> float:
    """How many levels below a field reach the engine as they are."""
    if name in _BECOMES_TEXT or (name in _IS_SCHEMA and path != COMPLETIONS):
        return 1 if (path, name) in _HAS_SCHEMA else 0
    return math.inf


def _integers(name: str, value: Any, levels: float) -> Iterator[tuple[str, int]]:
    waiting = [(name, value, levels)]  # no recursion: a client decides how deep it is
    while waiting:
        where, found, left = waiting.pop()
        if isinstance(found, int):
            yield where, found
        elif left and isinstance(found, Mapping):
            waiting += [
                (f"{where}.{shown_name(key)}", inner, left - 1) for key, inner in found.items() if _is_searched(inner)
            ]
        elif left and isinstance(found, list):
            waiting += [
                (f"{where}[{number}]", inner, left - 1) for number, inner in enumerate(found) if _is_searched(inner)
            ]


def _is_searched(value: Any) -> bool:
    """No small integer and no text, of which there may be many."""
    return isinstance(value, Mapping | list) or (isinstance(value, int) and not -_LARGEST <= value <= _LARGEST)
