"""The numbered lines of a page, and which of them the model sees. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

WIDTH = 80
_WORD = re.compile(r"\S+\s*|\s+")


def wrapped(text: str, width: int = WIDTH) -> list[str]:
    """The lines of a text, none longer than `width`. Its time grows with its length alone, whatever is in it."""
    return [piece for line in text.split("\n") for piece in _wrapped_line(line, width)]


def _wrapped_line(line: str, width: int) -> Iterator[str]:
    if len(line) <= width:
        yield line
        return
    start = end = 0
    for word in _pieces(line, width):
        if end - start + len(word.rstrip()) > width:
            yield line[start:end].rstrip()
            start = end
        end += len(word)
    yield line[start:end].rstrip()


def _pieces(line: str, width: int) -> Iterator[str]:
    """Words with the blanks after them; those longer than a line in parts."""
    for match in _WORD.finditer(line):
        word = match.group()
        yield from (word[at : at + width] for at in range(0, len(word), width))


def numbered(lines: Sequence[str], first: int) -> str:
    """Lines as the model sees them, with their numbers."""
    return "\n".join(f"L{first + index}: {line}" for index, line in enumerate(lines))


def end_of_view(lines: Sequence[str], first: int, chars: int, num_lines: int = 0) -> int:
    """The line before which a view ends.

    Args:
        lines: of the page.
        first: of the view.
        chars: the most characters of it, numbers included; one line is always shown.
        num_lines: the most lines, if it is positive.
    """
    last = min(len(lines), first + num_lines) if num_lines > 0 else len(lines)
    size = 0
    for index in range(first, last):
        size += len(lines[index]) + len(f"L{index}: \n")
        if size > chars and index > first:
            return index
    return last
