"""What a cell printed, of which the beginning and the end are kept. Pure."""

from __future__ import annotations


class Output:
    """Bytes that a child wrote, in the order of writing.

    Args:
        limit: how many of them are kept.
    """

    def __init__(self, limit: int) -> None:
        self.received = 0
        self._head_limit = limit // 2
        self._tail_limit = limit - limit // 2
        self._head = bytearray()
        self._tail = bytearray()

    def add(self, data: bytes) -> None:
        """Takes further bytes. Memory is bounded, however many come."""
        self.received += len(data)
        room = self._head_limit - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        del self._tail[: -self._tail_limit or None]

    def text(self) -> str:
        """All, or the two ends with a line between them that says how much is missing.

        What is no UTF-8 is replaced; so are NULs, which databases do not take.
        """
        missing = self.received - len(self._head) - len(self._tail)
        if not missing:
            return _decoded(bytes(self._head + self._tail))
        return f"{_decoded(bytes(self._head))}\n[{missing} bytes of output left out]\n{_decoded(bytes(self._tail))}"


def _decoded(data: bytes) -> str:
    return data.decode(errors="replace").replace("\0", "\ufffd")
