"""The job store: jobs with their input, output and webhooks, in SQLite or in PostgreSQL.

Every change of a job is one short transaction that names the states it may start from (`job.before`) and, for a running
job, the run it belongs to (`attempt`), so that the later of two concurrent changes has no effect. Times are
milliseconds since 1970, by the clocks of the processes: replicas need clocks that agree within a second or so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import sqlalchemy as sa

from gptoss_bento.state import idempotency, leases
from gptoss_bento.state.clock import Clock, now_ms
from gptoss_bento.state.database import Database
from gptoss_bento.state.idempotency import IdempotentUse
from gptoss_bento.state.job import RETRYABLE, Claim, Counts, Job, NewJob, Status, Webhook
from gptoss_bento.state.migrations import open_database
from gptoss_bento.state.queue_limits import check_owner_limit, check_queue_length
from gptoss_bento.state.schema import INPUTS, ITEMS, JOBS
from gptoss_bento.state.statements import (
    COUNTED_TOTALS,
    END_RUN,
    INSERT_INPUT,
    INSERT_JOB,
    JOB_COLUMNS,
    add_to_totals,
    append_items,
    due_webhooks,
    find_job,
    in_chunks,
    is_among,
    is_run,
    is_waiting,
    least,
    new_row,
    queue_length,
    read_items,
    run_parameters,
    storable,
    to_job,
    transition,
    values_at_end,
    values_requeued,
)
from gptoss_bento.state.transactions import Store, reads, writes
from gptoss_bento.state.worker_identity import WorkerIdentity

_DELETED_PER_TRANSACTION = 500


class JobStore(Store):
    """The jobs of one database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        super().__init__(database)
        self._now = clock

    # accepting

    @writes
    def submit(
        self,
        connection: sa.Connection,
        job: NewJob,
        max_queue_size: int,
        max_of_owner: int | None = None,
        free_worker: str | None = None,
        use: IdempotentUse | None = None,
    ) -> Job:
        """Queues a job or, if none waits, starts it on the worker that is free.

        Args:
            connection: of the transaction.
            job: to store.
            max_queue_size: how many jobs may wait.
            max_of_owner: how many unfinished jobs its owner may have.
            free_worker: the id of that worker.
            use: of the client's Idempotency-Key.

        Raises:
            KeyUsedError: the owner has used the Idempotency-Key before.
            QueueFullError: `max_queue_size` jobs wait, or `max_of_owner` of the same owner have not ended.
        """
        now = self._now()
        if use is not None:
            idempotency.take(connection, job.owner or "", use, job.id, now)
        waiting = check_queue_length(connection, max_queue_size)
        if max_of_owner:
            check_owner_limit(connection, job.owner, max_of_owner)
        connection.execute(INSERT_INPUT, {"job_id": job.id, "input": job.input})
        row = new_row(job, now)
        if free_worker and not waiting:
            row |= {"status": Status.IN_PROGRESS.value, "started_at": now, "worker_id": free_worker, "attempt": 1}
        return to_job(connection.execute(INSERT_JOB, row).one())

    @writes
    def retry(
        self, connection: sa.Connection, job_id: str, max_queue_size: int, max_of_owner: int | None = None
    ) -> tuple[Job | None, bool]:
        """Queues a FAILED or TIMED_OUT job again, without its old output.

        Returns the job, unchanged if it is in another state, and whether it was queued.

        Raises:
            QueueFullError: `max_queue_size` jobs wait, or `max_of_owner` of the job's owner have not ended.
        """
        now = self._now()
        job = find_job(connection, job_id, now)
        if job is None or job.status not in RETRYABLE:
            return job, False
        check_queue_length(connection, max_queue_size)
        if max_of_owner:
            check_owner_limit(connection, job.owner, max_of_owner)
        values = values_requeued() | {"queued_at": now, "recoveries": 0, "expires_at": now + JOBS.c.ttl_ms}
        again = connection.execute(
            transition(Status.IN_QUEUE, JOBS.c.id == job_id, from_=RETRYABLE).values(values).returning(*JOB_COLUMNS)
        )
        row = again.one_or_none()
        if row is None:  # another process was faster
            return find_job(connection, job_id, now), False
        connection.execute(ITEMS.delete().where(ITEMS.c.job_id == job_id))
        return to_job(row), True

    # reading

    @reads
    def get(self, connection: sa.Connection, job_id: str) -> Job | None:
        """A job, or None if there is none or it has expired."""
        return find_job(connection, job_id, self._now())

    @reads
    def output(self, connection: sa.Connection, job_id: str) -> tuple[Job | None, list[str]]:
        """A job with the JSON texts of its output, which only a COMPLETED one has."""
        job = find_job(connection, job_id, self._now())
        if job is None or job.status is not Status.COMPLETED:
            return job, []
        return job, read_items(connection, job_id, 0)

    async def take(self, job_id: str) -> tuple[Job | None, list[str]]:
        """The items not taken yet, which now count as delivered. The job's state is that of the same transaction.

        The last item of a FAILED or TIMED_OUT job is its error.
        """
        job = await self.get(job_id)
        if job is None or job.delivered >= job.deliverable:
            return job, []
        return await self._take(job_id)

    @writes
    def _take(self, connection: sa.Connection, job_id: str) -> tuple[Job | None, list[str]]:
        job = find_job(connection, job_id, self._now(), lock=True)
        if job is None or job.delivered >= job.deliverable:
            return job, []
        items = read_items(connection, job_id, job.delivered)
        if job.deliverable > job.item_count:
            items.append(job.error_item)
        connection.execute(JOBS.update().where(JOBS.c.id == job_id).values(delivered=job.deliverable))
        return job, items

    @reads
    def progress(self, connection: sa.Connection, job_ids: Collection[str]) -> dict[str, tuple[str, int, int]]:
        """State, run and number of items of each of these jobs; any change of a job changes one of them."""
        columns = (JOBS.c.id, JOBS.c.status, JOBS.c.attempt, JOBS.c.item_count)
        found: dict[str, tuple[str, int, int]] = {}
        for some in in_chunks(job_ids):
            rows = connection.execute(sa.select(*columns).where(JOBS.c.id.in_(some)))
            found |= {row.id: (row.status, row.attempt, row.item_count) for row in rows}
        return found

    @reads
    def counts(self, connection: sa.Connection) -> Counts:
        """For `/health`."""
        grouped = sa.select(JOBS.c.status, sa.func.count(), sa.func.sum(JOBS.c.retries)).group_by(JOBS.c.status)
        rows = list(connection.execute(grouped))
        totals = {row.name: row.number for row in connection.execute(COUNTED_TOTALS)}
        number = {status: count for status, count, _ in rows}
        return Counts(
            completed=number.get(Status.COMPLETED, 0) + totals.get("completed", 0),
            failed=sum(number.get(status, 0) for status in RETRYABLE) + totals.get("failed", 0),
            in_progress=number.get(Status.IN_PROGRESS, 0),
            in_queue=number.get(Status.IN_QUEUE, 0),
            retried=sum(retries for _, _, retries in rows) + totals.get("retried", 0),
        )

    # running

    @writes
    def claim(self, connection: sa.Connection, worker_id: str, limit: int) -> list[Claim]:
        """Claims up to `limit` jobs for this worker: first in, first out, low priority last."""
        now = self._now()
        order = (JOBS.c.low_priority, JOBS.c.queued_at, JOBS.c.seq)
        first = (
            sa.select(JOBS.c.seq).where(is_waiting(now)).order_by(*order).limit(limit).with_for_update(skip_locked=True)
        )
        values = {"started_at": now, "worker_id": worker_id, "attempt": JOBS.c.attempt + 1}
        change = transition(Status.IN_PROGRESS, is_among(first)).values(values)
        claimed = [
            JOBS.c[name]
            for name in ("id", "attempt", "execution_timeout_ms", "expires_at", "owner", "key_limits", "webhook")
        ]
        rows = sorted(connection.execute(change.returning(*claimed, *order)), key=lambda row: row[-3:])
        found = connection.execute(INPUTS.select().where(INPUTS.c.job_id.in_([row.id for row in rows])))
        inputs = {row.job_id: row.input for row in found}
        return [
            Claim(
                row.id,
                row.attempt,
                worker_id,
                inputs[row.id],
                row.execution_timeout_ms,
                row.expires_at,
                row.owner,
                row.key_limits,
                has_webhook=row.webhook is not None,
            )
            for row in rows
        ]

    @reads
    def waiting(self, connection: sa.Connection) -> bool:
        """Whether there is a job to claim. A claim that finds none would cost a write transaction."""
        return connection.execute(sa.select(JOBS.c.seq).where(is_waiting(self._now())).limit(1)).first() is not None

    @reads
    def queue_length(self, connection: sa.Connection) -> int:
        """How many jobs wait in the whole store."""
        return queue_length(connection)

    @writes
    def append(self, connection: sa.Connection, claim: Claim, first: int, items: Sequence[str]) -> bool:
        """Adds output to a running job; with `first`, the position of the first item, a repeated call adds nothing.

        Returns False if the claim has been lost.
        """
        return append_items(connection, claim, first, items)

    @writes
    def finish(
        self,
        connection: sa.Connection,
        claim: Claim,
        status: Status,
        first: int = 0,
        items: Sequence[str] = (),
        error: str | None = None,
        *,
        refused: bool = False,
    ) -> Job | None:
        """Ends a running job with its last items. Returns None, and changes nothing, if the claim has been lost."""
        now = self._now()
        if items and not append_items(connection, claim, first, items):
            return None
        end = {"end": now, "cause": storable(error), "at_fault": refused}
        row = connection.execute(END_RUN[status], {**run_parameters(claim), **end}).one_or_none()
        return to_job(row) if row else None

    async def owned(self, claims: Collection[Claim]) -> set[str]:
        """The ids of the claims that have not been lost."""
        progress = await self.progress([claim.id for claim in claims])
        return {claim.id for claim in claims if progress.get(claim.id, ())[:2] == (Status.IN_PROGRESS, claim.attempt)}

    # ending a job other than by its run

    @writes
    def cancel(self, connection: sa.Connection, job_id: str) -> Job | None:
        """Cancels a job that has not ended. Returns the job as it is afterwards."""
        now = self._now()
        there = (JOBS.c.id == job_id) & (JOBS.c.expires_at > now)
        connection.execute(transition(Status.CANCELLED, there).values(values_at_end(now)))
        return find_job(connection, job_id, now)

    @writes
    def purge(self, connection: sa.Connection) -> list[str]:
        """Cancels all jobs that wait. Returns their ids."""
        now = self._now()
        change = transition(Status.CANCELLED, is_waiting(now)).values(values_at_end(now)).returning(JOBS.c.id)
        return list((connection.execute(change)).scalars())

    @writes
    def shorten(self, connection: sa.Connection, job_id: str, ttl_ms: int) -> None:
        """Makes a result expire `ttl_ms` from now, or from the job's end if it still runs, if that is earlier."""
        now = self._now()
        ended = JOBS.c.ended_at.is_not(None)
        earlier = {
            "expires_at": sa.case((ended, least(JOBS.c.expires_at, now + ttl_ms)), else_=JOBS.c.expires_at),
            "result_ttl_ms": sa.case((ended, JOBS.c.result_ttl_ms), else_=least(JOBS.c.result_ttl_ms, ttl_ms)),
        }
        connection.execute(JOBS.update().where(JOBS.c.id == job_id).values(earlier))

    @writes
    def expire(self, connection: sa.Connection) -> list[str]:
        """Ends the jobs whose time to live is over. They are not found any more; their webhooks are still sent."""
        now = self._now()
        change = transition(Status.TIMED_OUT, JOBS.c.expires_at <= now)
        values = values_at_end(now, "The job's time to live (policy.ttl) was over before it ended.")
        ended = connection.execute(change.values(values).returning(JOBS.c.id))
        return list(ended.scalars())

    @writes
    def clean(self, connection: sa.Connection) -> int:
        """Deletes some of the expired jobs, and adds them to the totals. Returns how many."""
        expired = (JOBS.c.expires_at <= self._now()) & JOBS.c.webhook_due_at.is_(None) & JOBS.c.ended_at.is_not(None)
        some = sa.select(JOBS.c.seq).where(expired).limit(_DELETED_PER_TRANSACTION).with_for_update(skip_locked=True)
        deleted = list(
            connection.execute(JOBS.delete().where(is_among(some)).returning(JOBS.c.id, JOBS.c.status, JOBS.c.retries))
        )
        ids = [row.id for row in deleted]
        connection.execute(INPUTS.delete().where(INPUTS.c.job_id.in_(ids)))
        connection.execute(ITEMS.delete().where(ITEMS.c.job_id.in_(ids)))
        add_to_totals(connection, deleted)
        return len(deleted)

    # leases, and what happens to the jobs of a worker without one

    @writes
    def renew_lease(self, connection: sa.Connection, worker: WorkerIdentity) -> None:
        """Records that this worker is alive: its heartbeat."""
        leases.renew(connection, worker, self._now())

    @writes
    def release_lease(self, connection: sa.Connection, worker_id: str) -> None:
        """Records that this worker has ended; the jobs that it still runs are free for others."""
        leases.release(connection, worker_id)

    @writes
    def recover(self, connection: sa.Connection, lease_ms: int, is_gone: Callable[[WorkerIdentity], bool]) -> list[str]:
        """Takes over the jobs of workers without a heartbeat for `lease_ms`, or whose process is gone.

        A job runs again once, from the beginning. One whose output was streamed to a client already, or that was
        interrupted before, ends FAILED. Returns the ids of all of them.
        """
        alive = leases.end_expired(connection, self._now() - lease_ms, is_gone)
        return self._interrupt(connection, JOBS.c.worker_id.not_in(alive))

    @writes
    def interrupt(self, connection: sa.Connection, claim: Claim, *, counts: bool = True) -> list[str]:
        """Ends a run that cannot go on here: the job is treated as in `recover`.

        An interruption that does not count (`counts`) leaves the job the one that it may have.
        """
        return self._interrupt(connection, is_run(claim), counts=counts)

    @writes
    def give_back(self, connection: sa.Connection, claim: Claim) -> None:
        """Requeues a job that was claimed and has not been started, as if it had not been claimed."""
        values = {"started_at": None, "worker_id": None}
        connection.execute(transition(Status.IN_QUEUE, is_run(claim), from_={Status.IN_PROGRESS}).values(values))

    def _interrupt(self, connection: sa.Connection, which: sa.ColumnElement[bool], *, counts: bool = True) -> list[str]:
        now = self._now()
        running = which & (JOBS.c.status == Status.IN_PROGRESS)
        lost: list[str] = []
        for condition, error in (
            (JOBS.c.delivered > 0, "The server stopped while the job ran, after part of its output was streamed."),
            (
                (JOBS.c.recoveries > 0) & (sa.true() if counts else sa.false()),
                "The server stopped twice while the job ran.",
            ),
        ):
            change = (
                transition(Status.FAILED, running & condition).values(values_at_end(now, error)).returning(JOBS.c.id)
            )
            lost += (connection.execute(change)).scalars()
        values = values_requeued() | {"recoveries": JOBS.c.recoveries + int(counts)}
        change = transition(Status.IN_QUEUE, running, from_={Status.IN_PROGRESS}).values(values).returning(JOBS.c.id)
        again = list((connection.execute(change)).scalars())
        if again:
            connection.execute(ITEMS.delete().where(ITEMS.c.job_id.in_(again)))
        return lost + again

    # webhooks

    async def due_webhooks(self, limit: int, lease_ms: int) -> list[Webhook]:
        """Deliveries to try now, leased to this worker for `lease_ms`. One that is not settled by then is due again."""
        return await self._claim_webhooks(limit, lease_ms) if await self._any_webhook() else []

    @reads
    def _any_webhook(self, connection: sa.Connection) -> bool:
        return connection.execute(due_webhooks(self._now(), 1)).first() is not None

    @writes
    def _claim_webhooks(self, connection: sa.Connection, limit: int, lease_ms: int) -> list[Webhook]:
        now = self._now()
        chosen = is_among(due_webhooks(now, limit).with_for_update(skip_locked=True))
        values = {"webhook_due_at": now + lease_ms, "webhook_attempts": JOBS.c.webhook_attempts + 1}
        columns = (JOBS.c.id, JOBS.c.webhook, JOBS.c.webhook_attempts)
        rows = connection.execute(JOBS.update().where(chosen).values(values).returning(*columns))
        return [Webhook(row.id, row.webhook, row.webhook_attempts) for row in rows]

    @writes
    def settle(self, connection: sa.Connection, webhook: Webhook, retry_in_ms: int | None) -> None:
        """Ends a delivery, or sets the time of the next attempt."""
        same = (JOBS.c.id == webhook.job_id) & (JOBS.c.webhook_attempts == webhook.attempt)
        due = None if retry_in_ms is None else self._now() + retry_in_ms
        connection.execute(JOBS.update().where(same & JOBS.c.webhook_due_at.is_not(None)).values(webhook_due_at=due))

    @reads
    def snapshot(self, connection: sa.Connection, job_id: str) -> tuple[Job | None, list[str]]:
        """As `output`, also of an expired job: its webhook is sent all the same."""
        job = find_job(connection, job_id, 0)
        return job, read_items(connection, job_id, 0) if job and job.status is Status.COMPLETED else []


@asynccontextmanager
async def open_store(url: str | None, file: Path, clock: Clock = now_ms) -> AsyncIterator[JobStore]:
    """Opens the store, makes or migrates its schema, and closes it on leaving.

    Args:
        url: SQLAlchemy's URL of a database, or None.
        file: where SQLite keeps everything if there is no URL.
        clock: the time in milliseconds since 1970.

    Raises:
        ConfigurationError: the URL is none, or of another database, or the schema is newer than this code.
        StoreUnavailableError: the database does not answer.
    """
    async with open_database(url, file) as database:
        yield JobStore(database, clock)
