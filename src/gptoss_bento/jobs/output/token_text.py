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


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("replace")
