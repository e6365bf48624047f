"""Graceful shutdown: after SIGTERM running work gets some time to end, and only then does the worker stop.

uvicorn alone would stop accepting immediately. New clients would then wait in the queue of the supervisor's socket
until the process has ended. So uvicorn's signal handler is called later. Meanwhile the probes say "stopping", new work
is refused with a 503 and a Retry-After, and the state of jobs can still be read.
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

_POLL_INTERVAL_S = 0.05
_ABORT_GRACE_S = 1.0
"""For requests that were aborted, so that their error events reach the clients."""


class Work(Protocol):
    """What a drain waits for."""

    @property
    def busy(self) -> bool:
        """Whether anything runs."""
        ...

    def pause(self) -> None:
        """Takes nothing new."""
        ...

    async def abort(self) -> None:
        """Ends what still runs: requests get a final error event, jobs are requeued."""
        ...


class GracefulShutdown:
    """The graceful shutdown of one worker."""

    def __init__(self) -> None:
        self.in_flight = 0
        """Requests that the engine works for now; http/shutdown_gate.py counts them."""
        self._timeout_s = 0.0
        self._begun = asyncio.Event()
        self._forced = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None  # None: there is nothing to drain
        self._end: Callable[[], None] | None = None

    @property
    def begun(self) -> bool:
        """Whether new work is refused."""
        return self._end is not None

    def begin(self, end: Callable[[], None]) -> float:
        """Called by the signal handler. `end` is called once all is done, immediately if nothing can run.

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

    def force(self) -> None:
        """Ends the wait: a second Ctrl-C asks for it."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._forced.set)

    async def wait_delivered(self) -> None:
        """Waits a moment until clients of aborted requests have received their final error event."""
        await self._until(lambda: not self.in_flight, _ABORT_GRACE_S)

    @asynccontextmanager
    async def draining(self, timeout_s: float, work: Work) -> AsyncIterator[None]:
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
            await work.abort()
            await self.wait_delivered()
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
            if await wait_or_timeout(self._forced, _POLL_INTERVAL_S):
                return


def _nothing() -> None:
    """Replaces an end that has come."""
