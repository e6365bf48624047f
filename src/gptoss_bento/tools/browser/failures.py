"""What goes wrong for the model: texts that it reads and can act on."""

from __future__ import annotations


class BrowserError(Exception):
    """A call of the model that cannot be answered. Its text is for the model, without keys and private addresses."""


def shortened(text: str, length: int = 200) -> str:
    """The beginning of a text of somebody else, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 3] + "..."
