"""How many lines of batches run, and when the next may: live requests come first."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

_POLL_INTERVAL_S = 0.05


class Slots:
    """The slots of the lines of one service. Batches that wait for one get them in turn.

    Args:
        count: lines at the same time.
        has_room: whether the engine has room beside its other requests.
    """

    def __init__(self, count: int, has_room: Callable[[], bool]) -> None:
        self.count = count
        self._free = asyncio.Semaphore(count)
        self._has_room = has_room
        self.is_paused = False
        """Whether no line starts any more."""
        self.taken = 0
        self._of_owner: Counter[str] = Counter()  # also those that wait for room

    async def take(self, owner: str = "", most: int | None = None) -> Slot:
        """A slot that is held. It waits for one, and for room in the engine.

        Args:
            owner: whose line it is.
            most: of this owner at the same time; None: all.
        """
        slot = Slot(self, owner, most)
        await slot.take()
        return slot

    async def acquire(self, owner: str, most: int | None) -> None:
        """Waits for a slot, and for room in the engine."""
        while most is not None and self._of_owner[owner] >= most:  # noqa: ASYNC110  # few, and seldom
            await asyncio.sleep(_POLL_INTERVAL_S)
        self._of_owner[owner] += 1
        try:
            await self._acquire()
        except BaseException:
            self._of_owner[owner] -= 1
            raise

    async def _acquire(self) -> None:
        await self._free.acquire()
        try:
            while self.is_paused or not self._has_room():  # noqa: ASYNC110  # other processes change it
                await asyncio.sleep(_POLL_INTERVAL_S)
        except BaseException:
            self._free.release()
            raise
        self.taken += 1

    def release(self, owner: str) -> None:
        """The line has ended."""
        self.taken -= 1
        self._of_owner[owner] -= 1
        self._free.release()


class Slot:
    """The slot of one line, which leaves it to others while it waits."""

    def __init__(self, slots: Slots, owner: str, most: int | None) -> None:
        self._slots = slots
        self._owner = owner
        self._most = most
        self._is_held = False

    async def take(self) -> None:
        """Waits for a slot, and for room in the engine."""
        await self._slots.acquire(self._owner, self._most)
        self._is_held = True

    def release(self) -> None:
        """Leaves the slot, if it is held."""
        if self._is_held:
            self._is_held = False
            self._slots.release(self._owner)

    async def pause(self, waiting: Awaitable[None]) -> None:
        """Waits without the slot, and takes one again."""
        self.release()
        await waiting
        await self.take()
