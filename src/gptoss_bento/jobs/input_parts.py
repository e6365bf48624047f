"""The parts of messages that are no text: vLLM drops them, and the model would answer without them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gptoss_bento.strict_json import shown

_READ = frozenset({"text", "input_text", "output_text"})
"""The types of which vLLM 0.32's Harmony takes the text; a part without a type is read too."""


def other_parts(messages: Any, place: str = "messages") -> Iterator[str]:
    """A sentence for each part that is no text. What has another shape is left to other checks."""
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        content = message.get("content") if isinstance(message, dict) else None
        for at, part in enumerate(content if isinstance(content, list) else ()):
            yield from _problem(part, f"{place}[{index}].content[{at}]")


def _problem(part: Any, where: str) -> Iterator[str]:
    kind = part.get("type", "text") if isinstance(part, dict) else "text"
    if kind not in _READ:
        yield f"{where}.type must be text, the model reads nothing else, got {shown(kind)}"
    elif not isinstance(part, str) and not (isinstance(part, dict) and isinstance(part.get("text"), str)):
        yield f'{where} must be {{"type": "text", "text": "…"}}, got {shown(part)}'
