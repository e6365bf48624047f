"""The text of an event, divided among its tokens. Pure."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextSplitter:
    """Divides the text of one sequence: joined, the parts are the text, whatever the engine held back or merged.

    A token that ends inside a character has an empty part, and the character belongs to the token that completes it.
    """

    def __init__(self) -> None:
        self._decoder = _decoder()
        self._waiting = ""

    def split(self, text: str, tokens: int, pieces: Sequence[bytes] | None) -> list[str]:
        """One part for each token of an event.

        Args:
            text: what the event added; text that no token came with waits for the next token.
            tokens: how many tokens it has.
            pieces: their bytes, if known; without them all text goes to the last token.
        """
        text, self._waiting = self._waiting + text, ""
        if not tokens:
            self._waiting = text
            return []
        return self._aligned(text, pieces or [b""] * tokens)

    def _aligned(self, text: str, pieces: Sequence[bytes]) -> list[str]:
        parts = []
        for piece in pieces:
            wanted = self._decoder.decode(piece)
            # Where the text differs (a special token that is left out, a stop string), the token has no part.
            part = wanted if text.startswith(wanted) else ""
            text = text[len(part) :]
            parts.append(part)
        parts[-1] += text
        return parts

    def rest(self) -> str:
        """Text that came with no token and found none afterwards."""
        text, self._waiting = self._waiting, ""
        return text


class StopFilter:
    """Ends a text before its first stop string, where the engine lets it through.

    What may be the beginning of one is held back, so the text of a token can come with a later one.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = stops
        self._held = ""
        self._stopped = False

    def passed(self, text: str) -> str:
        """The part of the text so far that is certainly before a stop string and was not returned yet."""
        if self._stopped or not self._stops:
            return "" if self._stopped else text
        text, self._held = self._held + text, ""
        found = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            self._stopped = True
            return text[: min(found)]
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self) -> str:
        """What was held back and turned out to be no stop string."""
        text, self._held = self._held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` with which `stop` begins."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("replace")
