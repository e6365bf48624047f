"""Periodic work: jobs expire, are deleted later, and are counted for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from gptoss_bento.background.tasks import WorkerTasks
from gptoss_bento.jobs.metrics import job_gauges
from gptoss_bento.state.store import JobStore

EXPIRE_INTERVAL_S = 1.0
DELETE_INTERVAL_S = 5.0
GAUGE_INTERVAL_S = 5.0  # Prometheus scrapes every 15 s or so


class Housekeeping:
    """Expires, deletes and counts the jobs of a store.

    Args:
        store: whose jobs.
        tasks: of this worker; the loops run among them until they stop.
        running: returns how many jobs run in this worker.
        on_expired: is called with the ids of the jobs whose time to live is over.
    """

    def __init__(
        self,
        store: JobStore,
        tasks: WorkerTasks,
        running: Callable[[], int],
        on_expired: Callable[[list[str]], None],
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._running = running
        self._on_expired = on_expired

    def start(self) -> None:
        """Begins to work in the background."""
        for interval_s, work in (
            (EXPIRE_INTERVAL_S, self._expire),
            (DELETE_INTERVAL_S, self._delete_expired),
            (GAUGE_INTERVAL_S, self._count),
        ):
            self._tasks.spawn(self._tasks.every(interval_s, work))

    async def _expire(self) -> None:
        if expired := await self._store.expire():
            self._on_expired(expired)

    async def _delete_expired(self) -> None:
        while not self._tasks.stopping.is_set() and await self._store.clean():
            pass

    async def _count(self) -> None:
        gauges = job_gauges()
        gauges.in_progress.set(self._running())
        gauges.in_queue.set(await self._store.queue_length())
