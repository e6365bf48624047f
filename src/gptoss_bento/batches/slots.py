"""How many lines of batches run, and when the next may: live requests come first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_POLL_INTERVAL_S = 0.05


class Slots:
    """The slots of the lines of one service. Batches that wait for one get them in turn.

    Args:
        count: lines at the same time.
        has_room: whether the engine has room beside its other requests.
    """

    def __init__(self, count: int, has_room: Callable[[], bool]) -> None:
        self._free = asyncio.Semaphore(count)
        self._has_room = has_room
        self.is_paused = False
        """Whether no line starts any more."""
        self.taken = 0

    async def take(self) -> None:
        """Waits for a slot, and for room in the engine."""
        await self._free.acquire()
        try:
            while self.is_paused or not self._has_room():  # noqa: ASYNC110  # other processes change it
                await asyncio.sleep(_POLL_INTERVAL_S)
        except BaseException:
            self._free.release()
            raise
        self.taken += 1

    def release(self) -> None:
        """The line has ended."""
        self.taken -= 1
        self._free.release()
