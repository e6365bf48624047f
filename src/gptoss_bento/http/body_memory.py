"""The memory of one process for bodies and messages that are on their way to it."""

from __future__ import annotations

from collections.abc import Callable

_HELD_BYTES = 256 * 2**20
_HELD_BODIES = 8.0  # of the largest that may be sent


class BodyMemory:
    """Counts what is held of incomplete bodies.

    Beyond a bound, the one that has been on its way longest is evicted: those sent without a pause come through
    beside any number of slow ones.

    Args:
        most: bytes of all together.
        bodies: of the largest that may be sent, if that is more.
    """

    def __init__(self, most: int = _HELD_BYTES, bodies: float = _HELD_BODIES) -> None:
        self._held: dict[object, tuple[int, Callable[[], None]]] = {}  # the oldest first
        self._most: float = most
        self._bodies = bodies
        self.all = 0
        """Bytes of all together."""

    def hold(self, body: object, size: int, limit: int, evict: Callable[[], None]) -> None:
        """Records how much is held of a body.

        Args:
            body: the same for each piece.
            size: bytes of all its pieces.
            limit: bytes that it may have.
            evict: gives the body up.
        """
        self._most = max(self._most, self._bodies * limit)
        self.all += size - self._held.get(body, (0, evict))[0]
        self._held[body] = size, evict
        while self.all > self._most:
            oldest = next(iter(self._held))
            _, give_up = self._held[oldest]
            self.leave(oldest)
            give_up()

    def leave(self, body: object) -> None:
        """The body is complete, or was given up."""
        if found := self._held.pop(body, None):
            self.all -= found[0]


bodies = BodyMemory()
"""Of this process: bodies of HTTP, and messages of WebSocket connections."""
