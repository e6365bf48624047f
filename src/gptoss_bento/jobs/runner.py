"""The life of jobs: accepted, run, ended, whatever happens in between. The routes only ask."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any

from gptoss_bento.access.admission import RefusedError
from gptoss_bento.config.api_keys import Key
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.engine.usage import Meter
from gptoss_bento.jobs.engine_client import Engine
from gptoss_bento.jobs.input import Envelope, InputError
from gptoss_bento.jobs.limits import JobLimits, limits_text
from gptoss_bento.jobs.metrics import job_gauges
from gptoss_bento.jobs.notifications import QUEUE, Bell
from gptoss_bento.jobs.output.readers import EngineError, EngineUnavailableError
from gptoss_bento.jobs.run import ItemWriter, LostError, ModelList, items_of, request_of, until_available
from gptoss_bento.jobs.watchers import Changes, Watch
from gptoss_bento.jobs.webhooks import (
    ATTEMPT_TIMEOUT_S,
    ForbiddenAddressError,
    WebhookSender,
    refuse_private,
    webhook_sender,
)
from gptoss_bento.state.clock import Clock, now_ms
from gptoss_bento.state.database import StoreUnavailableError
from gptoss_bento.state.job import Claim, Job, NewJob, Status, Webhook
from gptoss_bento.state.queue_limits import QueueFullError
from gptoss_bento.state.store import JobStore, open_store
from gptoss_bento.state.worker_identity import WorkerIdentity, is_gone, own_identity
from gptoss_bento.strict_json import EnvelopeError, dumps, shown
from gptoss_bento.workers.worker_group import Team

logger = logging.getLogger(__name__)

LEASE_MS = 15_000
"""Unseen for so long, a worker counts as dead and its jobs go to others."""

LONGEST_WAIT_MS = 300_000
_LOOK_S = 0.5  # how soon is noticed what another process did
_BEAT_S = 3.0
_EXPIRE_S = 1.0
_CLEAN_S = 5.0
_COUNT_S = 5.0  # Prometheus asks every 15 s or so
_WEBHOOK_S = 1.0
_DELIVERIES = 20
_FIRST_GUESS_S = 10.0  # how long a run takes, until some have ended
_WEIGHT = 0.1  # of the newest run in the mean
_STOP_S = 2.0  # the service has 3 s between the end of DRAIN_TIMEOUT and its forced end
_DOUBT_S = 0.5  # at a stop the engine hears SIGTERM too, perhaps before us


_FAULT = "The server could not run the job; its log says why."


class _Stop(Enum):
    """Why a run is to end early."""

    NOT_NEEDED = auto()  # cancelled, or another worker has it: nothing is written
    SHUTDOWN = auto()  # this worker ends: the job goes back to the queue


@dataclass(eq=False)
class _Run:
    claim: Claim
    task: asyncio.Task[None] | None = None
    stop: _Stop | None = None
    ending: bool = False  # its end is being written; nothing may interrupt that

    def abort(self, why: _Stop) -> None:
        if self.task and not self.ending and self.stop is None:
            self.stop = why
            self.task.cancel()


@dataclass(frozen=True)
class _Outcome:
    status: Status | None  # None: nothing is to be written
    error: str | None = None
    interrupted: bool = False
    refused: bool = False
    counts: bool = True  # as an interruption: it had come to the engine


class Runner:
    """Runs the jobs of a store on an engine, once there is one. One for each worker process."""

    def __init__(
        self,
        store: JobStore,
        settings: ServerSettings,
        sender: WebhookSender,
        place: WorkerIdentity,
        clock: Clock = now_ms,
        team: Team | None = None,
        limits: JobLimits | None = None,
    ) -> None:
        self.store = store
        self.settings = settings
        self.limits = limits or JobLimits()
        self.changes = Changes()
        self._sender = sender
        self._place = place
        self._clock = clock
        self._team = team or Team()
        self._concurrency = self._team.share(settings.max_concurrency)
        self._bell = Bell(self._team.own_socket("jobs"), self._team.other_sockets("jobs"), self._heard)
        self._engine: Engine | None = None
        self._engine_lost = False
        self._models: ModelList | None = None
        self._runs: dict[str, _Run] = {}
        self._promised = 0  # places for jobs that are being claimed or accepted
        self._may_wait = True  # as far as is known here, jobs are in the queue
        self._mean_run_s = _FIRST_GUESS_S
        self._gone_while_claiming: set[str] | None = None
        self._to_claim = asyncio.Event()
        self._to_deliver = asyncio.Event()
        self._stopping = asyncio.Event()
        self._paused = False
        self._beaten = clock()
        self._others_known_from = 0  # before, an old sign of life of another worker proves nothing
        self._tasks: set[asyncio.Task[Any]] = set()

    # the engine

    def attach(self, engine: Engine) -> None:
        """The engine answers: jobs run from now on."""
        self._engine, self._models, self._engine_lost = engine, ModelList(engine), False
        self._claim_soon()

    def detach(self) -> None:
        """The engine does not answer any more, and will not."""
        self._engine, self._engine_lost = None, True

    @property
    def running(self) -> int:
        """How many jobs run here."""
        return len(self._runs)

    def pause(self) -> None:
        """The service is about to stop: no further job is begun, and one that cannot go on is handed back."""
        self._paused = True

    # what clients ask for

    async def submit(
        self, envelope: Envelope, *, sync: bool, wait_ms: int | None = None, key: Key | None = None
    ) -> Job:
        """Accepts a job. The result of a `sync` one is kept for a minute, or as long as its client waits.

        Raises:
            EnvelopeError: the webhook leads to an address that is not public.
            RefusedError: too many wait, or the key has as many jobs as it may.
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
            owner=key.name if key else None,
            key_limits=limits_text(key),
        )
        with self._refusing():  # in a task of its own: a job that is in the store has a run, whoever hangs up
            return await asyncio.shield(self._spawn(self._accept(new, key.limits.jobs if key else None)))

    async def _accept(self, new: NewJob, most_of_owner: int | None) -> Job:
        """Puts a job into the queue, or begins it at once if none is before it and a place is free."""
        worker_id = self._place.worker_id if self._free else None
        promised = int(worker_id is not None)
        self._promised += promised
        try:
            job = await self.store.submit(new, self.settings.max_queue_size, most_of_owner, worker_id)
        except StoreUnavailableError:
            if worker_id:  # the database may have taken it all the same
                lost = Claim(new.id, 1, worker_id, new.input, new.execution_timeout_ms, 0)
                self._spawn(until_available(lambda: self.store.interrupt(lost, counts=False)))
            raise
        finally:
            self._promised -= promised
        if job.status is Status.IN_QUEUE:
            self._to_run()
        elif not self._stopping.is_set():
            self._begin(_begun(new, job))
        return job

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """A full queue has a place again when the next of the running jobs ends."""
        try:
            yield
        except QueueFullError as error:
            raise RefusedError(str(error), self._mean_run_s / self.settings.max_concurrency) from None

    async def ended(self, job_id: str, wait_s: float) -> tuple[Job | None, Sequence[str]]:
        """A job with its output, once it has ended or the time is over."""

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
        """Takes the new items of a job, waiting for them if there are none. Each is given out once.

        Args:
            job_id: the job.
            wait_s: how long to wait at most.
            is_left: whether the client is gone, to whom nothing must be given out.
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
            while not await reached(watch) and not self._stopping.is_set():
                left = deadline - time.monotonic()
                if left <= 0:
                    return  # what was just seen is the answer
                with suppress(TimeoutError):
                    await asyncio.wait_for(watch.changed.wait(), left)
                watch.changed.clear()

    async def cancel(self, job_id: str) -> Job | None:
        """Cancels a job that has not ended, and its generation at once. Returns what it is now."""
        job = await self.store.cancel(job_id)
        self._abort([job_id])
        return job

    async def purge(self) -> int:
        """Cancels all that wait; what runs goes on. Returns how many."""
        purged = await self.store.purge()
        self._ended_from_outside(purged)
        return len(purged)

    async def retry(self, job_id: str) -> tuple[Job | None, bool]:
        """Queues a FAILED or TIMED_OUT job again. Returns it, and whether it was such a one.

        Raises:
            RefusedError: too many wait, or the key that the job came with has as many jobs as it may.
        """
        found = await self.store.get(job_id)
        most_of_owner = self.limits.of(found).jobs if found else None
        with self._refusing():
            job, again = await self.store.retry(job_id, self.settings.max_queue_size, most_of_owner)
        self._to_run()
        return job, again

    def _to_run(self) -> None:
        """A job waits: for this worker, or for another one if this one has its share."""
        self._claim_soon()
        if len(self._runs) >= self._concurrency:
            self._bell.ring([QUEUE])

    def _claim_soon(self) -> None:
        self._may_wait = True
        self._to_claim.set()

    async def health(self) -> dict[str, Any]:
        """The body of `/health`: one engine is one worker (contract, D33)."""
        counts = await self.store.counts()
        ready, running = self._engine is not None, bool(self._team.jobs)
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

    def hearing(self) -> AbstractContextManager[None]:
        """Within this context the other workers' news are heard at once, rather than soon."""
        return self._bell.listening()

    async def start(self) -> None:
        """Takes up what a former process left, and begins to work."""
        await self.store.renew_lease(self._place)
        recovered = await self.store.recover(LEASE_MS, self._is_gone)
        if recovered:
            logger.info("%d interrupted jobs taken up", len(recovered))
        self._spawn(self._claim_loop())
        self._spawn(self._webhook_loop())
        for interval_s, work in (
            (_LOOK_S, self._look_around),
            (_BEAT_S, self._beat),
            (_EXPIRE_S, self._expire),
            (_CLEAN_S, self._clean),
            (_COUNT_S, self._count),
        ):
            self._spawn(self._every(interval_s, work))

    async def stop(self) -> None:
        """Gives back what runs, so that another process or the next one runs it, and ends. Twice does no harm."""
        self.pause()
        self._stopping.set()
        self._to_claim.set()
        self._to_deliver.set()
        self.changes.notify(self.changes.watched)
        for run in list(self._runs.values()):
            run.abort(_Stop.SHUTDOWN)
        if self._tasks:
            _, running = await asyncio.wait(self._tasks, timeout=_STOP_S)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        with suppress(StoreUnavailableError):
            await self.store.release_lease(self._place.worker_id)

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _claim_loop(self) -> None:
        while not self._stopping.is_set():
            self._to_claim.clear()
            with _logged("claiming jobs"):
                await self._claim()
            await self._to_claim.wait()

    @property
    def _free(self) -> int:
        """How many jobs may begin here now."""
        if self._engine is None or self._engine.dead or self._paused or self._team.is_ending:
            return 0
        return max(0, self._concurrency - len(self._runs) - self._promised)

    async def _claim(self) -> None:
        if not (free := self._free):
            return
        self._may_wait = False
        self._promised += free
        self._gone_while_claiming = set()
        try:
            claims = await self.store.claim(self._place.worker_id, free)
            self._may_wait |= len(claims) == free
            for claim in claims:
                # A job cancelled between its claim and now has no run that could be aborted. After a stop, the job is
                # this worker's until it leaves, and then interrupted like any other.
                if claim.id not in self._gone_while_claiming and not self._stopping.is_set():
                    self._begin(claim)
        finally:
            self._promised -= free
            self._gone_while_claiming = None

    def _begin(self, claim: Claim) -> None:
        run = self._runs[claim.id] = _Run(claim)
        self._team.tell_jobs(len(self._runs))
        run.task = self._spawn(self._run(run))
        run.task.add_done_callback(lambda _: self._forget(run))  # also of a task that is cancelled before it begins

    def _forget(self, run: _Run) -> None:
        del self._runs[run.claim.id]
        self._team.tell_jobs(len(self._runs))
        if self._may_wait:
            self._to_claim.set()

    async def _run(self, run: _Run) -> None:
        writer = ItemWriter(self.store, run.claim, lambda: self._tell([run.claim.id]))
        began = time.monotonic()
        outcome = await self._outcome(run, writer)
        self._mean_run_s += _WEIGHT * (time.monotonic() - began - self._mean_run_s)
        run.ending = True
        await asyncio.shield(self._spawn(self._end(run, writer, outcome)))

    async def _outcome(self, run: _Run, writer: ItemWriter) -> _Outcome:
        """How a run ended. Every run has an end, whatever goes wrong in it."""
        try:
            return await self._metered(run, writer)
        except asyncio.CancelledError:
            return _Outcome(None, interrupted=run.stop is not _Stop.NOT_NEEDED)
        except Exception:
            logger.exception("job %s", run.claim.id)
            return _Outcome(Status.FAILED, _FAULT)

    async def _metered(self, run: _Run, writer: ItemWriter) -> _Outcome:
        """Runs the engine, and charges the job's owner where that matters."""
        if not self.limits.of(run.claim).tokens_per_minute:
            return await self._generate(run, writer)
        with Meter() as meter:
            try:
                return await self._generate(run, writer)
            finally:
                with _logged(f"charging job {run.claim.id}"):  # what was generated is not lost for that
                    self.limits.charge(run.claim.owner, meter.tokens)

    async def _generate(self, run: _Run, writer: ItemWriter) -> _Outcome:
        """Runs the engine until the end: one that is foreseen, or the error of a fault."""
        engine, models = self._engine, self._models
        if engine is None or models is None:
            return _Outcome(None, interrupted=True)
        to_live = asyncio.timeout(max(0, run.claim.expires_at - self._clock()) / 1000)
        try:
            async with to_live:
                return await self._in_time(run.claim, engine, models, writer)
        except LostError:
            return _Outcome(None)
        except TimeoutError:
            return _Outcome(Status.TIMED_OUT, _over_time(run.claim, to_live.expired()))
        except (InputError, EngineError, ConnectionError) as error:
            return await self._failure(engine, error)

    async def _in_time(self, claim: Claim, engine: Engine, models: ModelList, writer: ItemWriter) -> _Outcome:
        """Runs the engine until its end or that of the execution time, which stands still while the job waits.

        Raises:
            TimeoutError: the execution time is over.
        """
        limit_s, began = claim.execution_timeout_ms / 1000, time.monotonic()
        async with asyncio.timeout(limit_s):
            request = await request_of(claim, engine, models, self.settings, self.limits)
        left_s = max(0.0, limit_s - (time.monotonic() - began))
        async with self.limits.room_for(request, self.settings.max_openai_requests):
            if engine.dead:
                return _Outcome(None, interrupted=True, counts=False)
            async with asyncio.timeout(left_s), aclosing(items_of(claim, request, engine)) as items:
                async for item, last in items:
                    writer.add(item, last=last)
        return _Outcome(Status.COMPLETED)

    async def _failure(self, engine: Engine, error: Exception) -> _Outcome:
        """FAILED, unless the run failed because this process or its engine ends."""
        if isinstance(error, (EngineUnavailableError, ConnectionError)) and not (engine.dead or self._paused):
            await asyncio.sleep(_DOUBT_S)
        if engine.dead or (self._paused and not isinstance(error, InputError)):
            return _Outcome(None, interrupted=True)
        return _failed(error)

    async def _end(self, run: _Run, writer: ItemWriter, outcome: _Outcome) -> None:
        ended: tuple[Job, list[str]] | None = None
        try:
            if outcome.status is not None:
                ended = await writer.end(outcome.status, outcome.error, refused=outcome.refused)
            else:
                await writer.settle()
            if outcome.interrupted:
                counts = outcome.counts and not self._paused  # a job that is handed back may be interrupted once more
                await until_available(lambda: self.store.interrupt(run.claim, counts=counts))
        except Exception:  # of the database, and not for lack of it: the job must end all the same
            logger.exception("job %s", run.claim.id)
            await until_available(lambda: self.store.finish(run.claim, Status.FAILED, error=_FAULT))
        if ended and ended[0].expires_at > self._clock():
            self.changes.end(*ended)
        self._tell([run.claim.id])
        if run.claim.has_webhook:
            self._to_deliver.set()

    def _tell(self, job_ids: list[str]) -> None:
        """Something happened here to these jobs."""
        self.changes.notify(job_ids)
        self._bell.ring(job_ids)

    def _heard(self, job_ids: list[str]) -> None:
        """Something happened to these jobs in another worker."""
        self.changes.notify(job_ids)
        if QUEUE in job_ids:
            self._claim_soon()
        if self._runs.keys() & set(job_ids):
            self._spawn(self._look_around())

    # what time brings

    async def _every(self, interval_s: float, work: Callable[[], Awaitable[None]]) -> None:
        while not self._stopping.is_set():
            with _logged(work.__name__.strip("_")):
                await work()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), interval_s)

    async def _look_around(self) -> None:
        """What other processes did: new jobs, ended ones, cancelled ones."""
        if watched := self.changes.watched:
            self.changes.compare(await self.store.progress(watched))
        if claims := [run.claim for run in self._runs.values() if not run.ending]:
            owned = await self.store.owned(claims)
            self._abort([claim.id for claim in claims if claim.id not in owned])
        if self._engine and len(self._runs) < self._concurrency and await self.store.waiting():
            self._claim_soon()

    def _abort(self, job_ids: list[str]) -> None:
        for job_id in job_ids:
            if run := self._runs.get(job_id):
                run.abort(_Stop.NOT_NEEDED)
        self._ended_from_outside(job_ids)

    def _ended_from_outside(self, job_ids: list[str]) -> None:
        if self._gone_while_claiming is not None:
            self._gone_while_claiming.update(job_ids)
        self._tell(job_ids)
        self._to_deliver.set()

    async def _beat(self) -> None:
        await self.store.renew_lease(self._place)
        now = self._clock()
        if now - self._beaten > LEASE_MS // 2:  # the store was away: nobody could say that he lives
            self._others_known_from = now + LEASE_MS
        self._beaten = now
        if now >= self._others_known_from:
            self._tell(await self.store.recover(LEASE_MS, self._is_gone))

    def _is_gone(self, place: WorkerIdentity) -> bool:
        """A worker beside this one that was killed takes all with it; the next start takes up its jobs."""
        return is_gone(place) and not self._team.has(place.pid)

    async def _expire(self) -> None:
        if expired := await self.store.expire():
            self._abort(expired)

    async def _clean(self) -> None:
        while not self._stopping.is_set() and await self.store.clean():
            pass

    async def _count(self) -> None:
        gauges = job_gauges()
        gauges.in_progress.set(len(self._runs))
        gauges.in_queue.set(await self.store.queue_length())

    async def _webhook_loop(self) -> None:
        while not self._stopping.is_set():
            self._to_deliver.clear()
            with _logged("webhooks"):
                await self._deliver_due()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._to_deliver.wait(), _WEBHOOK_S)

    async def _deliver_due(self) -> None:
        lease_ms = int(3 * ATTEMPT_TIMEOUT_S * 1000)
        for webhook in await self.store.due_webhooks(_DELIVERIES, lease_ms):
            self._spawn(self._deliver(webhook))

    async def _deliver(self, webhook: Webhook) -> None:
        with _logged("a webhook"):
            job, items = await self.store.snapshot(webhook.job_id)
            if job is None or not job.status.is_terminal:
                return
            problem = await self._sender.send(webhook.url, job.body(items).encode())
            again = problem is not None and webhook.attempt <= self.settings.webhook_retries
            if problem:
                logger.warning(
                    "webhook of job %s, attempt %d: %s%s",
                    job.id,
                    webhook.attempt,
                    problem,
                    "" if again else "; given up",
                )
            await self.store.settle(webhook, self.settings.webhook_retry_delay_ms if again else None)


async def _refuse_private(webhook: str) -> None:
    try:
        await refuse_private(webhook)
    except ForbiddenAddressError as error:
        raise EnvelopeError(f"webhook must lead to a public address, got {shown(webhook)}: {error}") from None


def _begun(new: NewJob, job: Job) -> Claim:
    """The claim of a job that was begun when it was accepted."""
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


def _failed(error: Exception) -> _Outcome:
    refused = isinstance(error, InputError) or (isinstance(error, EngineError) and error.refused)
    return _Outcome(Status.FAILED, str(error), refused=refused)


def _over_time(claim: Claim, to_live: bool) -> str:
    if to_live:
        return "The job's time to live (policy.ttl) was over before it ended."
    return f"The job ran longer than policy.executionTimeout, {claim.execution_timeout_ms} ms."


class _logged(suppress):  # noqa: N801  # reads as a statement
    """What goes wrong in the background is logged, and tried again with the next round."""

    def __init__(self, what: str) -> None:
        super().__init__(Exception)
        self._what = what

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        if isinstance(error, StoreUnavailableError):
            logger.warning("%s: %s", self._what, error)
        elif isinstance(error, Exception):
            logger.error("%s failed", self._what, exc_info=error)
        return bool(super().__exit__(kind, error, trace))


@asynccontextmanager
async def running_jobs(
    settings: ServerSettings, file: Path, team: Team | None = None, limits: JobLimits | None = None
) -> AsyncIterator[Runner]:
    """Opens the store and starts the runner; on leaving, running jobs go back to the queue.

    Args:
        settings: what the operator said.
        file: where SQLite keeps the jobs if no other store was named.
        team: the workers that together run as many jobs as the settings say.
        limits: those of the keys.

    Raises:
        ConfigurationError: the store's URL or schema is wrong.
        StoreUnavailableError: the store does not answer.
    """
    url = settings.job_store_url.get_secret_value() if settings.job_store_url else None
    async with (
        open_store(url, file) as store,
        webhook_sender(allow_private=settings.webhook_allow_private) as sender,
    ):
        runner = Runner(store, settings, sender, own_identity(), team=team, limits=limits)
        with runner.hearing():
            await runner.start()
            try:
                yield runner
            finally:
                await runner.stop()
