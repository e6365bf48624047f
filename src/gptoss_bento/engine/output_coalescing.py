"""Coalesces the engine's output where several API workers share too few cores.

One message per token wastes CPU time that the engine needs: with two workers and an engine on two cores, one worker
alone fell behind, sent more tokens in each message, and reached more tokens/s (docs/performance.md). So a worker whose
thread often waits for a core pauses before it receives, and sends more at a time. With enough cores nothing changes.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

_Message = TypeVar("_Message")

_WITHOUT_CORE_S = 0.4  # the pause of a thread that only waits, before the bound is applied
_LONGEST_S = 0.05
_LONGEST_PER_REQUEST_S = 0.001  # few messages are not worth a pause
_SHORTEST_S = 0.002
_WEIGHT = 0.2  # of the newest share in the mean


class CoreWait:
    """How long the thread that makes this has been ready to run while others had the cores."""

    def __init__(self) -> None:
        try:
            self._file: int | None = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # a kernel that does not count it
            self._file = None

    def seconds(self) -> float:
        """Since the thread started; 0 where the kernel has no count (Linux, Documentation/scheduler/sched-stats)."""
        try:
            return int(os.pread(self._file, 80, 0).split()[1]) / 1e9 if self._file is not None else 0.0
        except (OSError, ValueError, IndexError):  # no reason to end a service
            self._file = None
            return 0.0


class OutputCoalescer:
    """Pauses before messages are received, for longer the more of its time this thread waits for a core.

    Args:
        is_empty: whether no message is there.
        requests: for how many the messages are.
        waited_s: how long the thread has waited for a core in all; None: as `CoreWait` says.
        clock: seconds.
    """

    def __init__(
        self,
        is_empty: Callable[[], bool],
        requests: Callable[[], int],
        waited_s: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._is_empty = is_empty
        self._requests = requests
        self._waited_s = waited_s
        self._clock = clock
        self._looked: tuple[float, float] | None = None  # the wait so far, and the time of that sample
        self._share = 0.0

    def before(self, receive: Callable[[], Awaitable[_Message]]) -> Callable[[], Awaitable[_Message]]:
        """`receive`, with a pause before it if nothing is there; all that came meanwhile is received without one."""

        async def receive_coalesced() -> _Message:
            if self._is_empty() and (pause_s := self._pause_s()) > _SHORTEST_S:
                await asyncio.sleep(0)  # what was just received is sent before the pause begins
                await asyncio.sleep(pause_s)
            return await receive()

        return receive_coalesced

    def _pause_s(self) -> float:
        if self._waited_s is None:
            self._waited_s = CoreWait().seconds  # here it is the thread that receives
        waited, now = self._waited_s(), self._clock()
        waited_before, before = self._looked or (waited, now)
        self._looked = (waited, now)
        share = max(0.0, waited - waited_before) / max(now - before, _SHORTEST_S)
        self._share += _WEIGHT * (share - self._share)
        return min(_LONGEST_S, _LONGEST_PER_REQUEST_S * self._requests(), _WITHOUT_CORE_S * self._share)
