"""How streamed output is cut into items: 1, 3, 9, 27, 50, 50, … entries. Pure."""

from __future__ import annotations

from dataclasses import dataclass

ITEM_BYTES = 1_000_000
"""One streamed item holds at most this much (RunPod's limit of 1 MB)."""

_CONTENT_BYTES = 950_000  # of that, for what is counted; the rest is for brackets, keys and usage


@dataclass(frozen=True)
class Schedule:
    """The sizes of successive items, in entries. They may be fractions: 2.25 closes at the third entry."""

    largest: float = 50
    smallest: float = 1
    growth: float = 3

    @property
    def _grows(self) -> bool:
        return self.growth > 1 and self.smallest >= 1 and self.largest > self.smallest

    @property
    def first(self) -> float:
        """The size of the first item."""
        return self.smallest if self._grows else self.largest

    def after(self, size: float) -> float:
        """The size that follows `size`."""
        return min(size * self.growth, self.largest) if self._grows else size


class Counter:
    """Counts what the open item holds and says when it is full."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._size = schedule.first
        self._entries = 0
        self._bytes = 0

    def has_room(self, size_bytes: int) -> bool:
        """Whether so much may still join the open item; an empty one takes anything."""
        return self._bytes == 0 or self._bytes + size_bytes <= _CONTENT_BYTES

    def add(self, size_bytes: int, entries: int = 1) -> bool:
        """Counts what joins the open item. True: it now has its number of entries and closes; the next one opens."""
        self._bytes += size_bytes
        self._entries += entries
        if self._entries < self._size:
            return False
        self._size = self._schedule.after(self._size)
        self.restart()
        return True

    def restart(self) -> None:
        """The next item opens. After one that closed for lack of room, it has the same number of entries to reach."""
        self._entries = self._bytes = 0
