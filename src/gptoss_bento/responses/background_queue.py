"""Responses in the background that wait: this worker claims them as it has slots, those of lost workers among them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from http import HTTPStatus

from gptoss_bento.access.admission import Grant
from gptoss_bento.background.store_retries import until_available
from gptoss_bento.background.tasks import WorkerTasks, logged
from gptoss_bento.concurrency import wait_or_timeout
from gptoss_bento.http.errors import RETRY, HttpRefusalError
from gptoss_bento.responses.background_slots import BackgroundSlots
from gptoss_bento.state.database import StoreUnavailableError
from gptoss_bento.state.response_queue import Claimed, Length, ResponseQueue, Waiting

logger = logging.getLogger(__name__)

_POLL_INTERVAL_S = 0.5  # how soon this worker sees what another has queued
_LOST_INTERVAL_S = 3.0
_NO_WAIT = "There is no slot for this response, and it cannot wait, because its tools have secrets"
_READ = 20  # waiting responses of one query

Start = Callable[[Claimed, Grant], None]


class BackgroundQueue:
    """The queue as one worker uses it.

    Args:
        store: of the queue.
        worker_id: of this worker.
        slots: of this worker.
        most: how many responses may wait; of each key half as many, so that no key fills the queue for the others.
    """

    def __init__(self, store: ResponseQueue, worker_id: str, slots: BackgroundSlots, most: int = 10_000) -> None:
        self.store = store
        self.slots = slots
        self._worker_id = worker_id
        self._most = most
        self._to_claim = asyncio.Event()
        self._doubtful: set[int] = set()  # rows of claims that the database has not answered

    def start(self, tasks: WorkerTasks, start: Start) -> None:
        """Claims from now on, until `tasks` stop.

        Args:
            tasks: of this worker.
            start: is called with what was claimed, and its slot.
        """
        tasks.spawn(self._claim_loop(tasks, start))
        tasks.spawn(tasks.every(_LOST_INTERVAL_S, self._requeue_lost))

    def wake(self) -> None:
        """A slot is free, or a response waits."""
        self._to_claim.set()

    async def slot(self, owner: str, *, may_wait: bool) -> Grant | None:
        """A slot for a new response; None: it waits, behind those of its owner that wait already.

        Those of other owners that wait while there is a slot may not have it, for instance because of their `streams`.

        Args:
            owner: of the response.
            may_wait: whether it can be kept until there is a slot.

        Raises:
            HttpRefusalError: it has no slot, and may not wait, or as many wait as may, of all owners or of this one.
            StoreUnavailableError: the database does not answer.
        """
        waiting = await self.store.length(owner) if may_wait else Length(0, 0)
        obstacle = self._obstacle(owner, waiting) if may_wait else _NO_WAIT
        grant = None if waiting.of_owner and obstacle is None else self.slots.enter(owner)
        if grant is None and obstacle is not None:
            raise HttpRefusalError(HTTPStatus.TOO_MANY_REQUESTS, f"{obstacle}. Try again later.", RETRY)
        return grant

    def _obstacle(self, owner: str, waiting: Length) -> str | None:
        """Why no further response of this owner may wait; None: it may. An open server has one owner, the empty one."""
        if waiting.total >= self._most:
            return f"{self._most} responses wait already"
        most = max(1, self._most // 2)
        if owner and waiting.of_owner >= most:
            return f"{most} responses of this key wait already, as many as may of one key"
        return None

    async def _claim_loop(self, tasks: WorkerTasks, start: Start) -> None:
        while not tasks.stopping.is_set():
            with logged("claiming responses"):
                await self._claim(start)
            await wait_or_timeout(self._to_claim, _POLL_INTERVAL_S)
            self._to_claim.clear()

    async def _claim(self, start: Start) -> None:
        await self._give_up_doubtful()
        without: set[str] = set()  # owners whose keys have as much as they may
        while self.slots.are_free and (found := await self.store.waiting(without, _READ)):
            for waiting in found:
                if waiting.owner in without:
                    continue
                if (grant := self.slots.enter(waiting.owner, waiting.key_limits)) is None:
                    without.add(waiting.owner)
                else:
                    await self._start(waiting, grant, start)

    async def _start(self, waiting: Waiting, grant: Grant, start: Start) -> None:
        claimed = None
        try:
            claimed = await self.store.claim(waiting.row, self._worker_id)
        except StoreUnavailableError:
            self._doubtful.add(waiting.row)
            raise
        finally:
            if claimed is None:
                self.slots.leave(grant, waiting.owner)
        if claimed is None:
            return
        if not self.slots.are_open:
            self.slots.leave(grant, waiting.owner)
            await until_available(partial(self.store.requeue, claimed.row, claimed.attempt, counts=False))
        else:
            start(claimed, grant)

    async def _give_up_doubtful(self) -> None:
        for row in tuple(self._doubtful):
            await self.store.unclaim(row, self._worker_id)
            self._doubtful.discard(row)

    async def _requeue_lost(self) -> None:
        if requeued := await self.store.requeue_lost():
            logger.info("%d responses of workers that ended are generated again", requeued)
            self.wake()
