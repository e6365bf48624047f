"""Several API workers on too few cores: what the engine puts out is gathered, and sent in fewer messages.

A worker that always finds a core free sends each token as soon as it is there. With two workers and an engine on two
cores that is as many messages, which cost the cores what would have been tokens; one worker alone falls behind, sends
more at a time, and gave more tokens/s (docs/performance.md). So a worker that must often wait for a core waits a little
longer, for more to send; where there are cores enough nothing is changed.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

_Message = TypeVar("_Message")

_WITHOUT_CORE_S = 0.4  # the pause of a thread that does nothing but wait, were it not for the bound
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
        """Since the thread began; 0 where nobody counts (Linux, Documentation/scheduler/sched-stats)."""
        try:
            return int(os.pread(self._file, 80, 0).split()[1]) / 1e9 if self._file is not None else 0.0
        except (OSError, ValueError, IndexError):  # no reason to end a service
            self._file = None
            return 0.0


class OutputCoalescer:
    """Pauses in the reception of messages, the longer the more of its time this thread waits for a core.

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
        self._looked: tuple[float, float] | None = None  # what had been waited, and when that was
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
