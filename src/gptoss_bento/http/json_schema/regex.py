"""What is wrong with a regular expression, as the engine's grammar compiler reads it. Pure.

Source: ECMA-262, and what xgrammar 0.2.8 takes of it (`tests/contract/test_schemas.py` compares the two).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

_HEX = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|u\{[0-9a-fA-F]+\})")
_COUNT = re.compile(r"\{(\d+)(?:(,)(\d*))?\}")
_GROUP = re.compile(r"\(\?(?::|P?<[^>=!][^>]*>)")
_LOOK = {"(?=": "lookahead", "(?!": "lookahead", "(?<": "lookbehind"}


class Flaw(Enum):
    """How bad it is."""

    WRONG = auto()  # it is no regular expression
    UNKNOWN = auto()  # the compiler does not take it
    IGNORED = auto()  # the compiler passes over it


class Found(NamedTuple):
    """What is wrong, and how bad it is; the reason is a clause without subject."""

    kind: Flaw
    reason: str


class _FlawError(Exception):
    def __init__(self, kind: Flaw, reason: str) -> None:
        super().__init__(reason)
        self.found = Found(kind, reason)


def flaw_of(pattern: str) -> Found | None:
    """What is wrong with it; None for nothing. What it cannot be compiled for comes before what is ignored."""
    scanner = _Scanner(pattern)
    try:
        scanner.scan()
    except _FlawError as error:
        return error.found
    return scanner.ignored


class _Scanner:
    """Reads a pattern once."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._open: list[int] = []
        self._repeatable = ""  # "": nothing, "atom", "repeated", or "lazy"
        self.ignored: Found | None = None

    def scan(self) -> None:
        """Reads all of it.

        Raises:
            _FlawError: it is wrong, or unknown.
        """
        while self._at < len(self._pattern):
            self._read(self._pattern[self._at])
        if self._open:
            raise _FlawError(Flaw.WRONG, f"has an unclosed ( at position {self._open[-1]}")

    def _read(self, letter: str) -> None:
        if letter == "\\":
            self._atom(self._escape())
        elif letter == "[":
            self._atom(self._character_class())
        elif letter == "(":
            self._group()
        elif letter == ")":
            self._close()
        elif letter in "*+?{":
            self._repetition(letter)
        elif letter in "^$|":
            self._anchor(letter)
        else:
            self._atom(1)

    def _atom(self, length: int) -> None:
        self._at += length
        self._repeatable = "atom"

    def _escape(self, within_class: bool = False) -> int:
        """The length of the escape here."""
        following = self._pattern[self._at + 1 : self._at + 2]
        if not following:
            raise _FlawError(Flaw.WRONG, "ends in a backslash")
        if following in "xu":
            if found := _HEX.match(self._pattern, self._at):
                return len(found[0])
            raise _FlawError(Flaw.WRONG, f"has an unfinished \\{following} at position {self._at}")
        if following in "pP":
            raise self._unknown(f"\\{following} (classes of Unicode)")
        if not within_class and following in "bB":
            raise self._unknown(f"\\{following} (boundaries of words)")
        if not within_class and following in "123456789k":
            raise self._unknown(f"\\{following} (references to groups)")
        return 3 if following == "c" and self._pattern[self._at + 2 : self._at + 3].isalpha() else 2

    def _unknown(self, what: str) -> _FlawError:
        return _FlawError(Flaw.UNKNOWN, f"has {what} at position {self._at}, which cannot be enforced")

    def _character_class(self) -> int:
        start, self._at = self._at, self._at + 1
        self._at += self._pattern.startswith("^", self._at)
        if self._pattern.startswith("]", self._at) and self._pattern[self._at - 1] == "[":
            raise _FlawError(Flaw.WRONG, f"has an empty [] at position {start}")
        self._check_ranges(list(self._members(start)), start)
        length, self._at = self._at + 1 - start, start
        return length

    def _check_ranges(self, members: list[str], start: int) -> None:
        while members:
            lower, *members = members
            if len(members) < 2 or members[0] != "-":
                continue
            upper, members = members[1], members[2:]
            if len(lower) == len(upper) == 1 and lower > upper:
                raise _FlawError(Flaw.WRONG, f"has the range {lower}-{upper} in the wrong order at position {start}")
            if upper[0] == "\\" and upper[1] in "dDwWsS" and lower[0] != "\\":
                raise self._unknown(f"a range that ends in {upper}")

    def _members(self, start: int) -> Iterator[str]:
        while not self._pattern.startswith("]", self._at):
            if self._at >= len(self._pattern):
                raise _FlawError(Flaw.WRONG, f"has an unclosed [ at position {start}")
            if self._pattern[self._at] == "\n":
                raise self._unknown("a line break within []")
            length = self._escape(within_class=True) if self._pattern[self._at] == "\\" else 1
            yield self._pattern[self._at : self._at + length]
            self._at += length

    def _group(self) -> None:
        look = _LOOK.get(self._pattern[self._at : self._at + 3])
        opened = _GROUP.match(self._pattern, self._at)
        if opened:
            length = len(opened[0])
        elif look == "lookahead":
            length, self.ignored = (
                3,
                Found(Flaw.IGNORED, f"has a lookahead at position {self._at}, which is not enforced"),
            )
        elif look:
            raise self._unknown(f"a {look}")
        elif self._pattern.startswith("(?", self._at):
            raise self._unknown("(? with flags")
        else:
            length = 1
        self._open.append(self._at)
        self._at += length
        self._repeatable = ""

    def _close(self) -> None:
        if not self._open:
            raise _FlawError(Flaw.WRONG, f"has an unmatched ) at position {self._at}")
        self._open.pop()
        self._atom(1)

    def _repetition(self, letter: str) -> None:
        length = 1
        if letter == "{":
            count = _COUNT.match(self._pattern, self._at)
            if count is None:
                raise self._unknown("a { that is no count of repetitions")
            if count[3] and int(count[3]) < int(count[1]):
                raise _FlawError(Flaw.WRONG, f"has {count[0]} at position {self._at}: {count[1]} is above {count[3]}")
            length = len(count[0])
        if not self._repeatable:
            raise _FlawError(Flaw.WRONG, f"has {letter} at position {self._at} with nothing to repeat")
        if self._repeatable == "lazy" or (self._repeatable == "repeated" and letter != "?"):
            raise self._unknown(f"{letter} behind a repetition")
        self._at += length
        self._repeatable = "lazy" if self._repeatable == "repeated" else "repeated"

    def _anchor(self, letter: str) -> None:
        before, after = self._pattern[: self._at], self._pattern[self._at + 1 :]
        begins = not before or before[-1] in "(|" or before.endswith("(?:")
        ends = not after or after[0] in ")|"
        if (letter == "^" and not begins) or (letter == "$" and not ends):
            self.ignored = Found(Flaw.IGNORED, f"has {letter} within, at position {self._at}, which is not enforced")
        self._at += 1
        self._repeatable = ""
