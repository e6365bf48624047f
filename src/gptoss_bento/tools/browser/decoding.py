"""Bodies of answers, unpacked as they come, and never beyond a bound."""

from __future__ import annotations

import zlib

from gptoss_bento.tools.browser.failures import BrowserError, shortened
from gptoss_bento.tools.wire import are_too_small

ACCEPTED = "gzip, deflate"
"""Accept-Encoding: what can be unpacked in bounded steps with the standard library."""
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_RAW_DEFLATE = -zlib.MAX_WBITS
_MOST_MEMBERS = 8  # of a gzip file; each costs a copy of what comes after it


class Body:
    """A body that grows by chunks.

    Args:
        encoding: its Content-Encoding, empty for none.
        limit: the most bytes of it, packed and unpacked.
    """

    def __init__(self, encoding: str, limit: int) -> None:
        encoding = encoding.strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise BrowserError(f"it is packed as `{shortened(encoding, 40)}`, which was not asked for")
        self._is_packed = encoding not in ("", "identity")
        self._may_be_raw = encoding == "deflate"
        self._unpack = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._limit = limit
        self._received = self._chunks = self._members = 0
        self.content = bytearray()

    def add(self, chunk: bytes) -> None:
        """Takes a chunk.

        Raises:
            BrowserError: it is too large, or packed in another way than it says.
        """
        self._received += len(chunk)
        self._chunks += 1
        if self._is_packed:
            self._add_packed(chunk)
        else:
            self.content += chunk
        if max(self._received, len(self.content)) > self._limit:
            raise BrowserError(f"it is larger than {self._limit:,} bytes")
        if are_too_small(self._chunks, self._received):
            raise BrowserError("it comes in too small pieces")

    def _add_packed(self, chunk: bytes) -> None:
        while chunk and len(self.content) <= self._limit and self._members < _MOST_MEMBERS:
            room = self._limit + 1 - len(self.content)
            try:
                self.content += self._unpack.decompress(chunk, room)
            except zlib.error:
                self._take_as_raw()
                continue
            chunk = self._unpack.unconsumed_tail
            if self._unpack.eof:
                self._members += 1
                chunk, self._unpack = self._unpack.unused_data, zlib.decompressobj(_GZIP_OR_ZLIB)

    def _take_as_raw(self) -> None:
        """Some servers send `deflate` without zlib's head; RFC 9110, section 8.4.1.2."""
        if not self._may_be_raw or self.content:
            raise BrowserError("it is not packed as it says") from None
        self._may_be_raw = False
        self._unpack = zlib.decompressobj(_RAW_DEFLATE)
