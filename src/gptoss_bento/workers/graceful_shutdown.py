"""The end of intake: after SIGTERM what runs gets some time to end, and only then does the worker stop.

uvicorn by itself would stop accepting at once, and new clients would hang in the queue of the supervisor's socket until
everything is over. So its signal handler is held back: meanwhile the probes say "stopping", new work is refused with a
503 that says when to come again, and the state of jobs can still be asked for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from gptoss_bento.concurrency import wait_or_timeout

logger = logging.getLogger(__name__)

_LOOK_S = 0.05
_LAST_WORDS_S = 1.0
"""For requests that were cut off to hear it."""


class Work(Protocol):
    """What a drain waits for."""

    @property
    def busy(self) -> bool:
        """Whether anything runs."""
        ...

    def pause(self) -> None:
        """Takes nothing new."""
        ...

    async def hand_back(self) -> None:
        """Ends what still runs: requests hear of it, jobs go back to the queue."""
        ...


class Drain:
    """One worker's last task."""

    def __init__(self) -> None:
        self.in_flight = 0
        """Requests that the engine works for now; http/shutdown_gate.py counts them."""
        self._timeout_s = 0.0
        self._begun = asyncio.Event()
        self._skipped = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None  # None: there is nothing to drain
        self._end: Callable[[], None] | None = None

    @property
    def begun(self) -> bool:
        """Whether new work is refused."""
        return self._end is not None

    def begin(self, end: Callable[[], None]) -> float:
        """Called by the signal handler. `end` is called once all is done, at once if nothing can run.

        Returns:
            Seconds that this may take.
        """
        if self._loop is None:
            end()
            return 0
        if self._end is None:
            self._end = end
            self._loop.call_soon_threadsafe(self._begun.set)
        return self._timeout_s

    def skip(self) -> None:
        """Whoever asks again, by a second Ctrl-C, does not want to wait."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._skipped.set)

    async def heard(self) -> None:
        """Waits a moment until the requests that were cut off have told their clients."""
        await self._until(lambda: not self.in_flight, _LAST_WORDS_S)

    @asynccontextmanager
    async def offered(self, timeout_s: float, work: Work) -> AsyncIterator[None]:
        """While the block runs, a stop waits for what runs, `timeout_s` seconds at most."""
        self._timeout_s, self._loop = timeout_s, asyncio.get_running_loop()
        task = asyncio.create_task(self._run(work))
        try:
            yield
        finally:
            self._loop = None
            task.cancel()
            self._finish()

    async def _run(self, work: Work) -> None:
        await self._begun.wait()
        started = time.monotonic()
        try:
            logger.info("stopping: nothing new is taken; what runs has %g s (DRAIN_TIMEOUT)", self._timeout_s)
            work.pause()
            await self._until(lambda: not work.busy, self._timeout_s)
            await work.hand_back()
            await self.heard()
            logger.info("stopping: drained after %.1f s", time.monotonic() - started)
        finally:
            self._finish()

    def _finish(self) -> None:
        """Once: a second SIGINT would make uvicorn drop what it still has to say."""
        if self._end is not None:
            end, self._end = self._end, _nothing
            end()

    async def _until(self, reached: Callable[[], bool], limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while not reached() and time.monotonic() < deadline:
            if await wait_or_timeout(self._skipped, _LOOK_S):
                return


def _nothing() -> None:
    """Stands for an end that has come."""
