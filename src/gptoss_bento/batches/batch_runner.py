"""The batches of one service, run by its first worker: claimed, run some at a time, stopped and cleaned up."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from gptoss_bento.background.tasks import WorkerTasks, logged
from gptoss_bento.batches.batch_run import BatchRun, RunParts, Stop
from gptoss_bento.concurrency import wait_or_timeout
from gptoss_bento.state.batch import BatchClaim, StoredBatch
from gptoss_bento.state.batch_store import BatchStore

logger = logging.getLogger(__name__)

_POLL_INTERVAL_S = 1.0
_CLEAN_INTERVAL_S = 60.0
_RETRY_S = 5.0  # before the next attempt of a batch whose run an error or the disk has ended
_MOST_RUNS = 4  # batches at the same time: a short one does not wait for the end of a long one
_MOST_OF_OWNER = _MOST_RUNS - 1  # so that another key's finds room
_STOP_TIMEOUT_S = 5.0


class BatchRunner:
    """The runs of this worker.

    Args:
        parts: of the runs.
        worker_id: of this worker, which has a lease in the same database.
        runs: whether this worker runs batches; the others of its service only accept them.
    """

    def __init__(self, parts: RunParts, worker_id: str, *, runs: bool = True) -> None:
        self._parts = parts
        self._worker_id = worker_id
        self._may_run = runs
        self._runs: set[BatchRun] = set()
        self._tasks = WorkerTasks()
        self._claiming = asyncio.Lock()

    @property
    def store(self) -> BatchStore:
        """Of the batches."""
        return self._parts.store

    @property
    def running(self) -> int:
        """How many lines are being answered."""
        return self._parts.slots.taken

    def start(self) -> None:
        """Begins to run batches."""
        self._tasks.spawn(self._tasks.every(_CLEAN_INTERVAL_S, self._clean))
        if self._may_run:
            self._tasks.spawn(self._tasks.every(_POLL_INTERVAL_S, self._claim))

    def wake(self) -> None:
        """There is a new batch."""
        if self._may_run and not self._tasks.stopping.is_set():
            self._tasks.spawn(self._claimed())

    def pause(self) -> None:
        """No further line is started; those that run go on."""
        self._parts.slots.is_paused = True

    async def stop(self) -> None:
        """Gives back what has not ended, for another worker or the next start. A second call does no harm."""
        self.pause()
        self._tasks.stopping.set()
        for run in list(self._runs):
            run.stop(Stop.SHUTDOWN)
        await self._tasks.stop(_STOP_TIMEOUT_S)

    async def _claimed(self) -> None:
        with logged("claiming batches"):
            await self._claim()

    async def _claim(self) -> None:
        async with self._claiming:
            await self._give_back_strays()
            while self._has_room() and await self.store.waits(full := self._full_owners()):
                batch = await self.store.claim(self._worker_id, full)
                if batch is None:
                    return
                if not self._has_room():  # the service has stopped meanwhile
                    await self.store.give_back(BatchClaim(batch.id, batch.attempt))
                    return
                self._start(batch)

    async def _give_back_strays(self) -> None:
        """What this worker has claimed and does not run: the answer to the claim was lost, or how the run ended."""
        claims = await self.store.claims_of(self._worker_id)
        runs = {run.claim for run in self._runs}
        for claim in claims:
            if claim not in runs:  # a run that has ended meanwhile has no claim any more
                logger.warning("batch %s has no run and is given back", claim.id)
                await self.store.give_back(claim)

    def _has_room(self) -> bool:
        return len(self._runs) < _MOST_RUNS and not self._parts.slots.is_paused

    def _full_owners(self) -> list[str]:
        runs = Counter(run.owner for run in self._runs)
        return [owner for owner, count in runs.items() if count >= _MOST_OF_OWNER]

    def _start(self, batch: StoredBatch) -> None:
        if batch.attempt > 1:
            logger.info("batch %s goes on, attempt %d", batch.id, batch.attempt)
        run = BatchRun(batch, self._parts)
        self._runs.add(run)
        self._tasks.spawn(self._execute(run)).add_done_callback(lambda _: self._runs.discard(run))

    async def _execute(self, run: BatchRun) -> None:
        with logged("running a batch"):
            if await run.run():
                return
        await wait_or_timeout(self._tasks.stopping, _RETRY_S)
        with logged("giving a batch back"):
            await self.store.give_back(run.claim)

    async def _clean(self) -> None:
        await self._parts.store.clean()
