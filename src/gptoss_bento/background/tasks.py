"""The asyncio tasks of one worker: started once, repeated, and stopped together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

from gptoss_bento.concurrency import wait_or_timeout
from gptoss_bento.state.database import StoreUnavailableError

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")


class WorkerTasks:
    """The tasks that a worker has in the background. `stopping` is set when they are to end."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        """Starts a task, and keeps it from being garbage collected."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def every(self, interval_s: float, work: Callable[[], Awaitable[None]]) -> None:
        """Repeats `work` until `stopping`, with `interval_s` between two calls. Errors are logged."""
        while not self.stopping.is_set():
            with logged(work.__name__.strip("_")):
                await work()
            await wait_or_timeout(self.stopping, interval_s)

    async def stop(self, timeout_s: float) -> None:
        """Waits until all tasks have ended; those that have not after `timeout_s` are cancelled."""
        self.stopping.set()
        if self._tasks:
            _, running = await asyncio.wait(self._tasks, timeout=timeout_s)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


class logged(suppress):  # noqa: N801  # reads as a statement
    """Logs an error instead of raising it: the next round tries again.

    Args:
        what: is being done; begins the log line.
    """

    def __init__(self, what: str) -> None:
        super().__init__(Exception)
        self._what = what

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, StoreUnavailableError):
            logger.warning("%s: %s", self._what, error)
        elif isinstance(error, Exception):
            logger.error("%s failed", self._what, exc_info=error)
        return bool(super().__exit__(kind, error, trace))
