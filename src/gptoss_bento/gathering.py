"""Several API workers on too few cores: what the engine puts out is gathered, and sent in fewer messages.

A worker that always finds a core free sends each token as soon as it is there. With two workers and an engine on two
cores that is as many messages, which cost the cores what would have been tokens; one worker alone falls behind, sends
more at a time, and gave 15 to 20 % more tokens/s (docs/performance.md). So a worker that has to wait for a core waits
a little longer, for more to send; where there are cores enough nothing is changed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

_Message = TypeVar("_Message")

_FACTOR = (
    8  # pause for each second that the worker waited for a core: with 4, two workers in one piece stayed 2 % behind
)
_WEIGHT = 0.2  # of the newest wait in the mean
_SHORTEST_S = 0.001
_LONGEST_S = 0.05


class CoreWait:
    """How long the thread that makes this has been ready to run while others had the cores."""

    def __init__(self) -> None:
        try:
            self._file: int | None = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # a kernel that does not count it
            self._file = None

    def seconds(self) -> float:
        """Since the thread began; 0 where nobody counts (Linux, Documentation/scheduler/sched-stats)."""
        return int(os.pread(self._file, 80, 0).split()[1]) / 1e9 if self._file is not None else 0.0


class Gathering:
    """Pauses in the reception of messages, as long as this thread waits for cores.

    Args:
        is_empty: whether no message is there.
        waited_s: how long the thread has waited for a core in all; None: as `CoreWait` says.
    """

    def __init__(self, is_empty: Callable[[], bool], waited_s: Callable[[], float] | None = None) -> None:
        self._is_empty = is_empty
        self._waited_s = waited_s
        self._known_s = self._mean_s = 0.0

    def before(self, receive: Callable[[], Awaitable[_Message]]) -> Callable[[], Awaitable[_Message]]:
        """`receive`, with a pause before it if nothing is there; all that came meanwhile is received without one."""

        async def receive_gathered() -> _Message:
            if self._is_empty() and (pause_s := self._pause_s()) > _SHORTEST_S:
                await asyncio.sleep(0)  # what was just received is sent before the pause begins
                await asyncio.sleep(pause_s)
            return await receive()

        return receive_gathered

    def _pause_s(self) -> float:
        if self._waited_s is None:  # only here is it the thread that receives
            self._waited_s = CoreWait().seconds
            self._known_s = self._waited_s()
        waited_s = self._waited_s()
        self._mean_s += _WEIGHT * (waited_s - self._known_s - self._mean_s)
        self._known_s = waited_s
        return min(_LONGEST_S, _FACTOR * self._mean_s)
