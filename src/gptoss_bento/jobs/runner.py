"""The jobs of one worker process: submitted, claimed, run, and followed by clients. The routes only ask this module."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from gptoss_bento.access.admission import RefusedError
from gptoss_bento.access.stored_limits import limits_text
from gptoss_bento.addresses import ForbiddenAddressError, refuse_private
from gptoss_bento.background.heartbeat import Heartbeat
from gptoss_bento.background.notifications import QUEUE, Notifier
from gptoss_bento.background.store_retries import until_available
from gptoss_bento.background.tasks import WorkerTasks, logged
from gptoss_bento.concurrency import wait_or_timeout
from gptoss_bento.config.api_keys import Key
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.http.json_body import EnvelopeError
from gptoss_bento.jobs.engine_client import Engine
from gptoss_bento.jobs.housekeeping import Housekeeping
from gptoss_bento.jobs.input import Envelope
from gptoss_bento.jobs.item_writer import ItemWriter
from gptoss_bento.jobs.limits import JobLimits
from gptoss_bento.jobs.run import AbortReason, JobExecutor, Outcome, Run
from gptoss_bento.jobs.watchers import Changes, Watch
from gptoss_bento.jobs.webhooks import WebhookDelivery, WebhookSender, webhook_sender
from gptoss_bento.state.clock import Clock, now_ms
from gptoss_bento.state.database import StoreUnavailableError
from gptoss_bento.state.idempotency import IdempotencyStore, IdempotentUse
from gptoss_bento.state.job import Claim, Job, NewJob, Status
from gptoss_bento.state.queue_limits import QueueFullError
from gptoss_bento.state.store import JobStore, open_store
from gptoss_bento.state.worker_identity import WorkerIdentity, own_identity
from gptoss_bento.strict_json import dumps, shown
from gptoss_bento.workers.worker_group import WorkerGroup

logger = logging.getLogger(__name__)

LONGEST_WAIT_MS = 300_000
POLL_INTERVAL_S = 0.5  # how soon this worker sees what another process did, if no notification arrives
HEARTBEAT_INTERVAL_S = 3.0
_STOP_TIMEOUT_S = 2.0  # the service has 3 s between the end of DRAIN_TIMEOUT and its forced end
_FIRST_RUN_ESTIMATE_S = 10.0  # how long a run takes, until some have ended
_NEWEST_RUN_WEIGHT = 0.1  # in the mean


class Runner:
    """Runs the jobs of a store on an engine, once there is one. Each worker process has one."""

    def __init__(
        self,
        store: JobStore,
        settings: ServerSettings,
        sender: WebhookSender,
        worker: WorkerIdentity,
        clock: Clock = now_ms,
        group: WorkerGroup | None = None,
        limits: JobLimits | None = None,
    ) -> None:
        self.store = store
        self.settings = settings
        self.limits = limits or JobLimits()
        self.changes = Changes()
        self.idempotency = IdempotencyStore(store.database, clock)
        self._worker = worker
        self._clock = clock
        self._group = group or WorkerGroup()
        self._concurrency = self._group.share(settings.max_concurrency)
        self._tasks = WorkerTasks()
        self._notifier = Notifier(self._group.own_socket("jobs"), self._group.other_sockets("jobs"), self._on_notify)
        self._heartbeat = Heartbeat(store, worker, clock, self._group)
        self._webhooks = WebhookDelivery(store, settings, sender, self._tasks)
        self._housekeeping = Housekeeping(store, self._tasks, lambda: self.running, self._abort)
        self._executor = JobExecutor(store, settings, self.limits, clock)
        self._engine_lost = False
        self._runs: dict[str, Run] = {}
        self._reserved = 0  # slots for jobs that are being claimed or accepted
        self._may_have_waiting = True  # as far as this worker knows, jobs wait in the queue
        self._mean_run_s = _FIRST_RUN_ESTIMATE_S
        self._ended_while_claiming: set[str] | None = None
        self._to_claim = asyncio.Event()

    # the engine

    def attach(self, engine: Engine) -> None:
        """The engine is ready: jobs run from now on."""
        self._executor.attach(engine)
        self._engine_lost = False
        self._schedule_claim()

    def detach(self) -> None:
        """The engine has ended, and does not come back."""
        self._executor.engine, self._engine_lost = None, True

    @property
    def worker_id(self) -> str:
        """Of this worker, which has a lease in the store while the runner runs."""
        return self._worker.worker_id

    @property
    def running(self) -> int:
        """How many jobs run here."""
        return len(self._runs)

    def pause(self) -> None:
        """The service is about to stop: no further job is started, and one that cannot go on is requeued."""
        self._executor.is_paused = True

    # requests of clients

    async def submit(
        self,
        envelope: Envelope,
        *,
        sync: bool,
        wait_ms: int | None = None,
        key: Key | None = None,
        use: IdempotentUse | None = None,
    ) -> Job:
        """Accepts a job. The result of a `sync` one is kept for `sync_result_ttl_ms`, or as long as its client waits.

        Raises:
            EnvelopeError: the webhook leads to an address that is not public.
            KeyUsedError: the Idempotency-Key of `use` has been used.
            RefusedError: the queue is full, or the key has as many jobs as allowed.
        """
        if envelope.webhook and not self.settings.webhook_allow_private:
            await _refuse_private(envelope.webhook)
        settings, policy = self.settings, envelope.policy
        kept = max(settings.sync_result_ttl_ms, wait_ms or 0) if sync else settings.async_result_ttl_ms
        new = NewJob(
            id=f"{'sync-' if sync else ''}{uuid.uuid4()}-u1",
            input=dumps(envelope.input),
            webhook=envelope.webhook,
            low_priority=policy.low_priority,
            execution_timeout_ms=policy.execution_timeout_ms,
            ttl_ms=policy.ttl_ms,
            result_ttl_ms=kept,
            owner=key.owner if key else None,
            key_limits=limits_text(key),
        )
        with self._refusing():  # a separate task: a job in the store must get a run even if the client disconnects
            return await asyncio.shield(self._tasks.spawn(self._accept(new, key.limits.jobs if key else None, use)))

    async def _accept(self, new: NewJob, most_of_owner: int | None, use: IdempotentUse | None) -> Job:
        """Queues a job or, if none waits and a slot is free, starts it immediately."""
        worker_id = self._worker.worker_id if self._free_slots else None
        reserved = int(worker_id is not None)
        self._reserved += reserved
        try:
            job = await self.store.submit(new, self.settings.max_queue_size, most_of_owner, worker_id, use)
        except StoreUnavailableError:
            if worker_id:  # the database may have stored it all the same
                lost = Claim(new.id, 1, worker_id, new.input, new.execution_timeout_ms, 0)
                self._tasks.spawn(until_available(lambda: self.store.interrupt(lost, counts=False)))
            raise
        finally:
            self._reserved -= reserved
        if job.status is Status.IN_QUEUE:
            self._on_queued()
        else:
            await self._start_or_give_back(_claim_of_started(new, job))
        return job

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Turns QueueFullError into RefusedError; the client may retry when the next of the running jobs has ended."""
        try:
            yield
        except QueueFullError as error:
            raise RefusedError(str(error), self._mean_run_s / self.settings.max_concurrency) from None

    async def ended(self, job_id: str, wait_s: float) -> tuple[Job | None, Sequence[str]]:
        """Waits until a job has ended, or for `wait_s`. Returns it with its output."""

        found: tuple[Job | None, Sequence[str]] = (None, ())

        async def has_ended(watch: Watch) -> bool:
            nonlocal found
            found = watch.ended or await self.store.output(job_id)
            return found[0] is None or found[0].status.is_terminal

        await self._wait(job_id, wait_s, has_ended)
        return found

    async def stream(
        self, job_id: str, wait_s: float, is_left: Callable[[], Awaitable[bool]]
    ) -> tuple[Job | None, list[str]]:
        """Takes the new items of a job, and waits if there are none. Each item is returned once.

        Args:
            job_id: the job.
            wait_s: how long to wait at most.
            is_left: whether the client has disconnected, so that no item must be taken.
        """

        async def has_news(_: Watch) -> bool:
            job = await self.store.get(job_id)
            return job is None or job.status.is_terminal or job.item_count > job.delivered

        await self._wait(job_id, wait_s, has_news)
        if await is_left():
            return await self.store.get(job_id), []
        return await self.store.take(job_id)

    async def _wait(self, job_id: str, wait_s: float, reached: Callable[[Watch], Awaitable[bool]]) -> None:
        deadline = time.monotonic() + wait_s
        with self.changes.of(job_id) as watch:
            while not await reached(watch) and not self._tasks.stopping.is_set():
                left = deadline - time.monotonic()
                if left <= 0:
                    return  # the caller answers with the state that was just read
                await wait_or_timeout(watch.changed, left)
                watch.changed.clear()

    async def cancel(self, job_id: str) -> Job | None:
        """Cancels a job that has not ended, and aborts its generation immediately. Returns the job."""
        job = await self.store.cancel(job_id)
        self._abort([job_id])
        return job

    async def purge(self) -> int:
        """Cancels all jobs that wait; those that run go on. Returns how many."""
        purged = await self.store.purge()
        self._on_ended(purged)
        return len(purged)

    async def retry(self, job_id: str) -> tuple[Job | None, bool]:
        """Queues a FAILED or TIMED_OUT job again. Returns the job, and whether it was queued.

        Raises:
            RefusedError: the queue is full, or the key that submitted the job has as many jobs as allowed.
        """
        found = await self.store.get(job_id)
        most_of_owner = self.limits.of(found).jobs if found else None
        with self._refusing():
            job, again = await self.store.retry(job_id, self.settings.max_queue_size, most_of_owner)
        self._on_queued()
        return job, again

    def _on_queued(self) -> None:
        """A job waits: this worker claims it, or another one if this one has no free slot."""
        self._schedule_claim()
        if len(self._runs) >= self._concurrency:
            self._notifier.publish([QUEUE])

    def _schedule_claim(self) -> None:
        self._may_have_waiting = True
        self._to_claim.set()

    async def health(self) -> dict[str, Any]:
        """The body of `/health`. Its `workers` counts engines, of which there is one."""
        counts = await self.store.counts()
        ready, running = self._executor.engine is not None, bool(self._group.jobs)
        return {
            "jobs": {
                "completed": counts.completed,
                "failed": counts.failed,
                "inProgress": counts.in_progress,
                "inQueue": counts.in_queue,
                "retried": counts.retried,
            },
            "workers": {
                "idle": int(ready and not running),
                "initializing": int(not ready and not self._engine_lost),
                "ready": int(ready),
                "running": int(ready and running),
                "throttled": 0,
                "unhealthy": int(self._engine_lost),
            },
        }

    # the work

    def listening(self) -> AbstractContextManager[None]:
        """Within this context, changes by other workers are received immediately, not only at the next poll."""
        return self._notifier.listening()

    async def start(self) -> None:
        """Takes over what a former process left, and begins to work."""
        recovered = await self._heartbeat.start()
        if recovered:
            logger.info("%d interrupted jobs requeued", len(recovered))
        self._tasks.spawn(self._claim_loop())
        self._tasks.spawn(self._webhooks.run())
        self._tasks.spawn(self._tasks.every(POLL_INTERVAL_S, self._sync_with_store))
        self._tasks.spawn(self._tasks.every(HEARTBEAT_INTERVAL_S, self._send_heartbeat))
        self._housekeeping.start()

    async def stop(self) -> None:
        """Requeues what runs, so that another process or the next one runs it, and ends. A second call does no harm."""
        self.pause()
        self._tasks.stopping.set()
        self._to_claim.set()
        self._webhooks.wake()
        self.changes.notify(self.changes.watched)
        for run in list(self._runs.values()):
            run.abort(AbortReason.SHUTDOWN)
        await self._tasks.stop(_STOP_TIMEOUT_S)
        with suppress(StoreUnavailableError):
            await self._heartbeat.stop()

    async def _claim_loop(self) -> None:
        while not self._tasks.stopping.is_set():
            self._to_claim.clear()
            with logged("claiming jobs"):
                await self._claim()
            await self._to_claim.wait()

    @property
    def _free_slots(self) -> int:
        """How many jobs may start here now."""
        if not self._executor.is_ready or self._group.is_ending:
            return 0
        return max(0, self._concurrency - len(self._runs) - self._reserved)

    async def _claim(self) -> None:
        if not (free := self._free_slots):
            return
        self._may_have_waiting = False
        self._reserved += free
        self._ended_while_claiming = set()
        try:
            claims = await self.store.claim(self._worker.worker_id, free)
            self._may_have_waiting |= len(claims) == free
            for claim in claims:
                if claim.id not in self._ended_while_claiming:  # a job cancelled since its claim has no run to abort
                    await self._start_or_give_back(claim)
        finally:
            self._reserved -= free
            self._ended_while_claiming = None

    async def _start_or_give_back(self, claim: Claim) -> None:
        """Starts a claimed job, unless the service is to stop by now."""
        if self._executor.is_paused:
            await until_available(lambda: self.store.give_back(claim))
        else:
            self._start(claim)

    def _start(self, claim: Claim) -> None:
        run = self._runs[claim.id] = Run(claim)
        self._group.report_jobs(len(self._runs))
        run.task = self._tasks.spawn(self._execute(run))
        run.task.add_done_callback(lambda _: self._forget(run))  # also if the task is cancelled before it starts

    def _forget(self, run: Run) -> None:
        del self._runs[run.claim.id]
        self._group.report_jobs(len(self._runs))
        if self._may_have_waiting:
            self._to_claim.set()

    async def _execute(self, run: Run) -> None:
        writer = ItemWriter(self.store, run.claim, lambda: self._notify([run.claim.id]))
        started = time.monotonic()
        outcome = await self._executor.execute(run, writer)
        self._mean_run_s += _NEWEST_RUN_WEIGHT * (time.monotonic() - started - self._mean_run_s)
        run.ending = True
        await asyncio.shield(self._tasks.spawn(self._end(run, writer, outcome)))

    async def _end(self, run: Run, writer: ItemWriter, outcome: Outcome) -> None:
        ended = await self._executor.record(run, writer, outcome)
        if ended and ended[0].expires_at > self._clock():
            self.changes.end(*ended)
        self._notify([run.claim.id])
        if run.claim.has_webhook:
            self._webhooks.wake()

    def _notify(self, job_ids: list[str]) -> None:
        """Notifies clients and the other workers that these jobs have changed here."""
        self.changes.notify(job_ids)
        self._notifier.publish(job_ids)

    def _on_notify(self, job_ids: list[str]) -> None:
        """These jobs have changed in another worker."""
        self.changes.notify(job_ids)
        if QUEUE in job_ids:
            self._schedule_claim()
        if self._runs.keys() & set(job_ids):
            self._tasks.spawn(self._sync_with_store())

    async def _sync_with_store(self) -> None:
        """Polls what other processes changed: jobs added, ended, cancelled."""
        if watched := self.changes.watched:
            self.changes.compare(await self.store.progress(watched))
        if claims := [run.claim for run in self._runs.values() if not run.ending]:
            owned = await self.store.owned(claims)
            self._abort([claim.id for claim in claims if claim.id not in owned])
        if self._executor.engine and len(self._runs) < self._concurrency and await self.store.waiting():
            self._schedule_claim()

    def _abort(self, job_ids: list[str]) -> None:
        for job_id in job_ids:
            if run := self._runs.get(job_id):
                run.abort(AbortReason.NOT_NEEDED)
        self._on_ended(job_ids)

    def _on_ended(self, job_ids: list[str]) -> None:
        if self._ended_while_claiming is not None:
            self._ended_while_claiming.update(job_ids)
        self._notify(job_ids)
        self._webhooks.wake()

    async def _send_heartbeat(self) -> None:
        self._notify(await self._heartbeat.beat())


async def _refuse_private(webhook: str) -> None:
    try:
        await refuse_private(webhook)
    except ForbiddenAddressError as error:
        raise EnvelopeError(f"webhook must lead to a public address, got {shown(webhook)}: {error}") from None


def _claim_of_started(new: NewJob, job: Job) -> Claim:
    """The claim of a job that was started when it was accepted."""
    return Claim(
        job.id,
        job.attempt,
        job.worker_id or "",
        new.input,
        new.execution_timeout_ms,
        job.expires_at,
        new.owner,
        new.key_limits,
        has_webhook=new.webhook is not None,
    )


@asynccontextmanager
async def running_jobs(
    settings: ServerSettings, file: Path, group: WorkerGroup | None = None, limits: JobLimits | None = None
) -> AsyncIterator[Runner]:
    """Opens the store and starts the runner; on leaving, running jobs are requeued.

    Args:
        settings: of the operator.
        file: where SQLite keeps the jobs if JOB_STORE_URL is not set.
        group: the workers, which share MAX_CONCURRENCY.
        limits: of the keys.

    Raises:
        ConfigurationError: the store's URL or schema is wrong.
        StoreUnavailableError: the store does not answer.
    """
    url = settings.job_store_url.get_secret_value() if settings.job_store_url else None
    async with (
        open_store(url, file) as store,
        webhook_sender(allow_private=settings.webhook_allow_private) as sender,
    ):
        runner = Runner(store, settings, sender, own_identity(), group=group, limits=limits)
        with runner.listening():
            await runner.start()
            try:
                yield runner
            finally:
                await runner.stop()
