"""Where jobs are kept: SQLite in a file, or PostgreSQL where several replicas share a queue. The only SQL.

Every change of a job is one short transaction that names the states it may start from (`job.before`) and, for a running
job, the run it belongs to (`attempt`), so that whoever comes second changes nothing. Times are milliseconds since 1970,
by the clocks of the processes: replicas need clocks that agree within a second or so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from gptoss_bento.errors import ConfigurationError
from gptoss_bento.state.job import RETRYABLE, Claim, Job, NewJob, Status, before

Clock = Callable[[], int]
_Result = TypeVar("_Result")

_READERS = 4

_BUSY_TIMEOUT_S = 10
_CONNECT_TIMEOUT_S = 5
_STATEMENT_TIMEOUT_S = 30
_CLEANED_AT_ONCE = 500
_MIGRATION_LOCK = 0x67707462  # any number, the same in all replicas
_ALONE_TIMEOUT_MS = 5_000
_FAR = 1000  # more than can be accepted at the same moment: PostgreSQL has fewer connections


class StoreUnavailableError(Exception):
    """The store cannot be used now: the disk is full or the database does not answer. Trying again may help."""


class QueueFullError(Exception):
    """As many jobs wait as may, or as many of this owner have not ended."""


@dataclass(frozen=True)
class Counts:
    """What `/health` tells of the jobs; the ended ones since the store was made."""

    completed: int = 0
    failed: int = 0
    in_progress: int = 0
    in_queue: int = 0
    retried: int = 0


@dataclass(frozen=True)
class Webhook:
    """A delivery that is due, for the `attempt`-th time."""

    job_id: str
    url: str
    attempt: int


@dataclass(frozen=True)
class Place:
    """Where a worker process lives: enough for another on the same machine to see that it is gone."""

    worker_id: str
    machine: str
    pid: int
    started: float  # seconds since 1970


# --- schema ----------------------------------------------------------------------------------------------------------

_metadata = sa.MetaData()
_sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # SQLite counts up INTEGER keys alone

_jobs = sa.Table(
    "jobs",
    _metadata,
    sa.Column("seq", _sequence, primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("low_priority", sa.Boolean, nullable=False),
    sa.Column("queued_at", sa.BigInteger, nullable=False),
    sa.Column("started_at", sa.BigInteger),
    sa.Column("ended_at", sa.BigInteger),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Column("execution_timeout_ms", sa.BigInteger, nullable=False),
    sa.Column("ttl_ms", sa.BigInteger, nullable=False),
    sa.Column("result_ttl_ms", sa.BigInteger, nullable=False),
    sa.Column("worker_id", sa.Text),
    sa.Column("attempt", sa.Integer, nullable=False),  # which run this is; writes of another run do not count
    sa.Column("retries", sa.Integer, nullable=False),
    sa.Column("recoveries", sa.Integer, nullable=False),  # of these, runs after the death of a worker
    sa.Column("error", sa.Text),
    sa.Column("refused", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("item_count", sa.Integer, nullable=False),
    sa.Column("delivered", sa.Integer, nullable=False),  # items that /stream has handed out
    sa.Column("webhook", sa.Text),
    sa.Column("webhook_due_at", sa.BigInteger),  # null: nothing to deliver
    sa.Column("webhook_attempts", sa.Integer, nullable=False),
    sa.Column("owner", sa.Text),  # the name of the key that it came with
    sa.Column("key_limits", sa.Text),  # which that key had then, as JSON; null: none
    sa.Index("jobs_queue", "status", "low_priority", "queued_at", "seq"),
    sa.Index("jobs_expiry", "expires_at"),
    sa.Index("jobs_webhooks", "webhook_due_at"),
    sqlite_autoincrement=True,
)
_inputs = sa.Table(  # apart, because SQLite writes the whole row anew at every change
    "inputs",
    _metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("input", sa.Text, nullable=False),
)
_items = sa.Table(
    "items",
    _metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("output", sa.Text, nullable=False),
)
_workers = sa.Table(
    "workers",
    _metadata,
    sa.Column("worker_id", sa.Text, primary_key=True),
    sa.Column("machine", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("started", sa.Float, nullable=False),
    sa.Column("seen_at", sa.BigInteger, nullable=False),
)
_totals = sa.Table(  # of the jobs that are cleaned away
    "totals",
    _metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
)
_version = sa.Table("schema_version", _metadata, sa.Column("version", sa.Integer, nullable=False))

_counted = sa.select(_totals.c.name, _totals.c.count.label("number"))

Migration = Callable[[sa.Connection], None]


def _first_schema(connection: sa.Connection) -> None:
    _metadata.create_all(connection)


def _add_refused(connection: sa.Connection) -> None:
    known = {column["name"] for column in sa.inspect(connection).get_columns(_jobs.name)}
    if "refused" not in known:  # in a new database the first step has made it
        connection.execute(sa.text("ALTER TABLE jobs ADD COLUMN refused BOOLEAN NOT NULL DEFAULT FALSE"))


def _add_owner(connection: sa.Connection) -> None:
    known = {column["name"] for column in sa.inspect(connection).get_columns(_jobs.name)}
    if "owner" not in known:
        connection.execute(sa.text("ALTER TABLE jobs ADD COLUMN owner TEXT"))


def _add_key_limits(connection: sa.Connection) -> None:
    known = {column["name"] for column in sa.inspect(connection).get_columns(_jobs.name)}
    if "key_limits" not in known:
        connection.execute(sa.text("ALTER TABLE jobs ADD COLUMN key_limits TEXT"))


MIGRATIONS: list[Migration] = [_first_schema, _add_refused, _add_owner, _add_key_limits]
"""The n-th leads from version n to n + 1. What was released is never changed; a new one is added.

A worker of an older version may still be at work on a database that a newer one has migrated, so a new column needs a
default. The first step makes the tables as they are now; the others find their work done.
"""

_JOB_COLUMNS = [_jobs.c[name] for name in Job.__dataclass_fields__]


# --- transactions ----------------------------------------------------------------------------------------------------


class _Database(Protocol):
    """Where transactions run."""

    async def run(self, work: Callable[[sa.Connection], _Result], *, writes: bool) -> _Result:
        """Runs `work` as one transaction."""
        ...

    async def close(self) -> None: ...


class _Sqlite:
    """SQLite in threads of its own, a whole transaction at a time.

    With an asynchronous driver every statement would change threads several times: a job cost 16 ms instead of 6
    (measured). SQLite has one writer, so there is one thread that writes; its queue is faster and fairer than waiting
    for locks.
    """

    def __init__(self, url: sa.URL) -> None:
        Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
        self.engine = sa.create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_S}, pool_size=_READERS + 1)
        sa.event.listen(self.engine, "connect", _prepare_sqlite)
        sa.event.listen(self.engine, "begin", _begin_sqlite)
        self._writer = ThreadPoolExecutor(1, "job-store-writer")
        self._readers = ThreadPoolExecutor(_READERS, "job-store-reader")

    async def run(self, work: Callable[[sa.Connection], _Result], *, writes: bool) -> _Result:
        def transaction() -> _Result:
            with self.engine.connect().execution_options(gptoss_writes=writes) as connection, connection.begin():
                return work(connection)

        with _translated():
            executor = self._writer if writes else self._readers
            return await asyncio.get_running_loop().run_in_executor(executor, transaction)

    async def close(self) -> None:
        for executor in (self._writer, self._readers):
            await asyncio.to_thread(executor.shutdown)
        self.engine.dispose()


class _Postgresql:
    """PostgreSQL through asyncpg."""

    def __init__(self, url: sa.URL) -> None:
        times = {"timeout": _CONNECT_TIMEOUT_S, "command_timeout": _STATEMENT_TIMEOUT_S}
        self.engine = create_async_engine(url, connect_args=times, pool_size=10, max_overflow=10, pool_pre_ping=True)

    async def run(self, work: Callable[[sa.Connection], _Result], *, writes: bool) -> _Result:  # noqa: ARG002
        with _translated():
            async with self.engine.begin() as connection:
                return await connection.run_sync(work)

    async def close(self) -> None:
        await self.engine.dispose()


_Arguments = ParamSpec("_Arguments")
_Work = Callable[Concatenate["JobStore", sa.Connection, _Arguments], _Result]
_Method = Callable[Concatenate["JobStore", _Arguments], Coroutine[Any, Any, _Result]]


def _reads(work: _Work[_Arguments, _Result]) -> _Method[_Arguments, _Result]:
    """Makes an asynchronous method of what is done with a connection in a transaction that only reads."""
    return _transaction(work, writes=False)


def _writes(work: _Work[_Arguments, _Result]) -> _Method[_Arguments, _Result]:
    """The same for a transaction that may write."""
    return _transaction(work, writes=True)


def _transaction(work: _Work[_Arguments, _Result], *, writes: bool) -> _Method[_Arguments, _Result]:
    @wraps(work)
    async def method(self: JobStore, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        return await self._database.run(lambda connection: work(self, connection, *args, **kwargs), writes=writes)

    return method


class JobStore:
    """The jobs of one database. Every method is one transaction and may raise StoreUnavailableError."""

    def __init__(self, database: _Database, clock: Clock) -> None:
        self._database = database
        self._now = clock

    # accepting

    @_writes
    def submit(
        self,
        connection: sa.Connection,
        job: NewJob,
        max_queue_size: int,
        max_of_owner: int | None = None,
        free_worker: str | None = None,
    ) -> Job:
        """Puts a job into the queue, or, if none waits there, begins it at the worker that is free.

        Raises:
            QueueFullError: `max_queue_size` jobs wait, or `max_of_owner` of the same owner have not ended.
        """
        now = self._now()
        waiting = _refuse_overflow(connection, max_queue_size)
        if max_of_owner:
            _refuse_crowd(connection, job.owner, max_of_owner)
        connection.execute(_INSERT_INPUT, {"job_id": job.id, "input": job.input})
        row = _new_row(job, now)
        if free_worker and not waiting:
            row |= {"status": Status.IN_PROGRESS.value, "started_at": now, "worker_id": free_worker, "attempt": 1}
        return _job(connection.execute(_INSERT_JOB, row).one())

    @_writes
    def retry(
        self, connection: sa.Connection, job_id: str, max_queue_size: int, max_of_owner: int | None = None
    ) -> tuple[Job | None, bool]:
        """Puts a FAILED or TIMED_OUT job into the queue again, without its old output.

        Returns the job, unchanged if it is in another state, and whether it was queued.

        Raises:
            QueueFullError: `max_queue_size` jobs wait, or `max_of_owner` of the job's owner have not ended.
        """
        now = self._now()
        job = _find(connection, job_id, now)
        if job is None or job.status not in RETRYABLE:
            return job, False
        _refuse_overflow(connection, max_queue_size)
        if max_of_owner:
            _refuse_crowd(connection, job.owner, max_of_owner)
        values = _queued_again() | {"queued_at": now, "recoveries": 0, "expires_at": now + _jobs.c.ttl_ms}
        again = connection.execute(
            _change(Status.IN_QUEUE, _jobs.c.id == job_id, from_=RETRYABLE).values(values).returning(*_JOB_COLUMNS)
        )
        row = again.one_or_none()
        if row is None:  # somebody else was faster
            return _find(connection, job_id, now), False
        connection.execute(_items.delete().where(_items.c.job_id == job_id))
        return _job(row), True

    # reading

    @_reads
    def get(self, connection: sa.Connection, job_id: str) -> Job | None:
        """A job, or None if there is none or its time is over."""
        return _find(connection, job_id, self._now())

    @_reads
    def output(self, connection: sa.Connection, job_id: str) -> tuple[Job | None, list[str]]:
        """A job with the JSON texts of its output, which only a COMPLETED one has."""
        job = _find(connection, job_id, self._now())
        if job is None or job.status is not Status.COMPLETED:
            return job, []
        return job, _read_items(connection, job_id, 0)

    async def take(self, job_id: str) -> tuple[Job | None, list[str]]:
        """The items that nobody has taken yet; from now on they are delivered. The state fits to them."""
        job = await self.get(job_id)
        if job is None or job.delivered == job.item_count:
            return job, []
        return await self._take(job_id)

    @_writes
    def _take(self, connection: sa.Connection, job_id: str) -> tuple[Job | None, list[str]]:
        job = _find(connection, job_id, self._now(), lock=True)
        if job is None or job.delivered == job.item_count:
            return job, []
        items = _read_items(connection, job_id, job.delivered)
        connection.execute(_jobs.update().where(_jobs.c.id == job_id).values(delivered=job.item_count))
        return job, items

    @_reads
    def progress(self, connection: sa.Connection, job_ids: Collection[str]) -> dict[str, tuple[str, int, int]]:
        """State, run and number of items of each of these jobs: what tells that something happened to it."""
        columns = (_jobs.c.id, _jobs.c.status, _jobs.c.attempt, _jobs.c.item_count)
        found: dict[str, tuple[str, int, int]] = {}
        for some in _in_portions(job_ids):
            rows = connection.execute(sa.select(*columns).where(_jobs.c.id.in_(some)))
            found |= {row.id: (row.status, row.attempt, row.item_count) for row in rows}
        return found

    @_reads
    def counts(self, connection: sa.Connection) -> Counts:
        """For `/health`."""
        grouped = sa.select(_jobs.c.status, sa.func.count(), sa.func.sum(_jobs.c.retries)).group_by(_jobs.c.status)
        rows = list(connection.execute(grouped))
        totals = {row.name: row.number for row in connection.execute(_counted)}
        number = {status: count for status, count, _ in rows}
        return Counts(
            completed=number.get(Status.COMPLETED, 0) + totals.get("completed", 0),
            failed=sum(number.get(status, 0) for status in RETRYABLE) + totals.get("failed", 0),
            in_progress=number.get(Status.IN_PROGRESS, 0),
            in_queue=number.get(Status.IN_QUEUE, 0),
            retried=sum(retries for _, _, retries in rows) + totals.get("retried", 0),
        )

    # running

    @_writes
    def claim(self, connection: sa.Connection, worker_id: str, limit: int) -> list[Claim]:
        """Up to `limit` jobs that this worker runs from now on: first in first out, low priority last."""
        now = self._now()
        order = (_jobs.c.low_priority, _jobs.c.queued_at, _jobs.c.seq)
        waiting = (_jobs.c.status == Status.IN_QUEUE) & (_jobs.c.expires_at > now)
        first = sa.select(_jobs.c.seq).where(waiting).order_by(*order).limit(limit).with_for_update(skip_locked=True)
        values = {"started_at": now, "worker_id": worker_id, "attempt": _jobs.c.attempt + 1}
        change = _change(Status.IN_PROGRESS, _among(first)).values(values)
        claimed = [
            _jobs.c[name]
            for name in ("id", "attempt", "execution_timeout_ms", "expires_at", "owner", "key_limits", "webhook")
        ]
        rows = sorted(connection.execute(change.returning(*claimed, *order)), key=lambda row: row[-3:])
        found = connection.execute(_inputs.select().where(_inputs.c.job_id.in_([row.id for row in rows])))
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

    @_reads
    def waiting(self, connection: sa.Connection) -> bool:
        """Whether there is anything to claim; cheaper than trying."""
        waiting = (_jobs.c.status == Status.IN_QUEUE) & (_jobs.c.expires_at > self._now())
        return (connection.execute(sa.select(_jobs.c.seq).where(waiting).limit(1))).first() is not None

    @_reads
    def queue_length(self, connection: sa.Connection) -> int:
        """How many wait, whoever will run them."""
        return _queue_length(connection)

    @_writes
    def append(self, connection: sa.Connection, claim: Claim, first: int, items: Sequence[str]) -> bool:
        """Adds output to a running job; `first` is the place of the first item, so that a repetition adds nothing.

        Returns False if the job is no longer this worker's to run.
        """
        return _append(connection, claim, first, items)

    @_writes
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
        """Ends a running job with its last items. None: it was ended or taken over before, and stays as it is."""
        now = self._now()
        if items and not _append(connection, claim, first, items):
            return None
        end = {"end": now, "cause": _storable(error), "at_fault": refused}
        row = connection.execute(_END_RUN[status], {**_run(claim), **end}).one_or_none()
        return _job(row) if row else None

    async def owned(self, claims: Collection[Claim]) -> set[str]:
        """The ids of those that are still to be run under these claims."""
        progress = await self.progress([claim.id for claim in claims])
        return {claim.id for claim in claims if progress.get(claim.id, ())[:2] == (Status.IN_PROGRESS, claim.attempt)}

    # ending from outside

    @_writes
    def cancel(self, connection: sa.Connection, job_id: str) -> Job | None:
        """Cancels a job that has not ended. Returns it as it is then."""
        now = self._now()
        there = (_jobs.c.id == job_id) & (_jobs.c.expires_at > now)
        connection.execute(_change(Status.CANCELLED, there).values(_ended(now)))
        return _find(connection, job_id, now)

    @_writes
    def purge(self, connection: sa.Connection) -> list[str]:
        """Cancels all that wait. Returns their ids."""
        now = self._now()
        waiting = (_jobs.c.status == Status.IN_QUEUE) & (_jobs.c.expires_at > now)
        change = _change(Status.CANCELLED, waiting).values(_ended(now)).returning(_jobs.c.id)
        return list((connection.execute(change)).scalars())

    @_writes
    def shorten(self, connection: sa.Connection, job_id: str, ttl_ms: int) -> None:
        """Lets a result be forgotten `ttl_ms` from now, if that is earlier; of a job that runs, after its end."""
        now = self._now()
        ended = _jobs.c.ended_at.is_not(None)
        earlier = {
            "expires_at": sa.case((ended, _least(_jobs.c.expires_at, now + ttl_ms)), else_=_jobs.c.expires_at),
            "result_ttl_ms": sa.case((ended, _jobs.c.result_ttl_ms), else_=_least(_jobs.c.result_ttl_ms, ttl_ms)),
        }
        connection.execute(_jobs.update().where(_jobs.c.id == job_id).values(earlier))

    @_writes
    def expire(self, connection: sa.Connection) -> list[str]:
        """Ends what is over its time to live; it is not found any more, but a webhook still hears of it."""
        now = self._now()
        change = _change(Status.TIMED_OUT, _jobs.c.expires_at <= now)
        values = _ended(now, "The job's time to live (policy.ttl) was over before it ended.")
        ended = connection.execute(change.values(values).returning(_jobs.c.id))
        return list(ended.scalars())

    @_writes
    def clean(self, connection: sa.Connection) -> int:
        """Deletes some of the jobs whose time is over, and keeps count of them. Returns how many."""
        over = (_jobs.c.expires_at <= self._now()) & _jobs.c.webhook_due_at.is_(None) & _jobs.c.ended_at.is_not(None)
        some = sa.select(_jobs.c.seq).where(over).limit(_CLEANED_AT_ONCE).with_for_update(skip_locked=True)
        deleted = list(
            connection.execute(
                _jobs.delete().where(_among(some)).returning(_jobs.c.id, _jobs.c.status, _jobs.c.retries)
            )
        )
        ids = [row.id for row in deleted]
        connection.execute(_inputs.delete().where(_inputs.c.job_id.in_(ids)))
        connection.execute(_items.delete().where(_items.c.job_id.in_(ids)))
        _add_to_totals(connection, deleted)
        return len(deleted)

    # workers and their death

    @_writes
    def beat(self, connection: sa.Connection, place: Place) -> None:
        """Says that this worker lives."""
        values = {"machine": place.machine, "pid": place.pid, "started": place.started, "seen_at": self._now()}
        beaten = connection.execute(_workers.update().where(_workers.c.worker_id == place.worker_id).values(values))
        if not beaten.rowcount:
            connection.execute(_workers.insert().values(worker_id=place.worker_id, **values))

    @_writes
    def leave(self, connection: sa.Connection, worker_id: str) -> None:
        """Says that this worker has ended; what it still runs is free for others."""
        connection.execute(_workers.delete().where(_workers.c.worker_id == worker_id))

    @_writes
    def recover(self, connection: sa.Connection, lease_ms: int, is_gone: Callable[[Place], bool]) -> list[str]:
        """Takes up the jobs of workers that were not seen for `lease_ms` or are known to be gone.

        A job runs again once, from the beginning. One whose output was streamed to somebody already, or that was
        interrupted before, ends FAILED. Returns the ids of all of them.
        """
        oldest = self._now() - lease_ms
        rows = list(connection.execute(sa.select(_workers)))
        dead = [row.worker_id for row in rows if row.seen_at < oldest or is_gone(Place(*row[:4]))]
        if dead:
            connection.execute(_workers.delete().where(_workers.c.worker_id.in_(dead)))
        alive = [row.worker_id for row in rows if row.worker_id not in dead]
        return self._interrupt(connection, _jobs.c.worker_id.not_in(alive))

    @_writes
    def interrupt(self, connection: sa.Connection, claim: Claim, *, counts: bool = True) -> list[str]:
        """Gives up a run that cannot go on here; the job has the same fate as after the worker's death.

        Unless it `counts`: handed back in good order, the job may be interrupted as often as it was allowed before.
        """
        return self._interrupt(connection, _is_run(claim), counts=counts)

    def _interrupt(self, connection: sa.Connection, which: sa.ColumnElement[bool], *, counts: bool = True) -> list[str]:
        now = self._now()
        running = which & (_jobs.c.status == Status.IN_PROGRESS)
        lost: list[str] = []
        for condition, error in (
            (_jobs.c.delivered > 0, "The server stopped while the job ran, after part of its output was streamed."),
            (
                (_jobs.c.recoveries > 0) & (sa.true() if counts else sa.false()),
                "The server stopped twice while the job ran.",
            ),
        ):
            change = _change(Status.FAILED, running & condition).values(_ended(now, error)).returning(_jobs.c.id)
            lost += (connection.execute(change)).scalars()
        values = _queued_again() | {"recoveries": _jobs.c.recoveries + int(counts)}
        change = _change(Status.IN_QUEUE, running, from_={Status.IN_PROGRESS}).values(values).returning(_jobs.c.id)
        again = list((connection.execute(change)).scalars())
        if again:
            connection.execute(_items.delete().where(_items.c.job_id.in_(again)))
        return lost + again

    # webhooks

    async def due_webhooks(self, limit: int, lease_ms: int) -> list[Webhook]:
        """Deliveries to try now. Each is this worker's for `lease_ms`; without `settle` it is due again then."""
        return await self._claim_webhooks(limit, lease_ms) if await self._any_webhook() else []

    @_reads
    def _any_webhook(self, connection: sa.Connection) -> bool:
        return connection.execute(_due_webhooks(self._now(), 1)).first() is not None

    @_writes
    def _claim_webhooks(self, connection: sa.Connection, limit: int, lease_ms: int) -> list[Webhook]:
        now = self._now()
        chosen = _among(_due_webhooks(now, limit).with_for_update(skip_locked=True))
        values = {"webhook_due_at": now + lease_ms, "webhook_attempts": _jobs.c.webhook_attempts + 1}
        columns = (_jobs.c.id, _jobs.c.webhook, _jobs.c.webhook_attempts)
        rows = connection.execute(_jobs.update().where(chosen).values(values).returning(*columns))
        return [Webhook(row.id, row.webhook, row.webhook_attempts) for row in rows]

    @_writes
    def settle(self, connection: sa.Connection, webhook: Webhook, retry_in_ms: int | None) -> None:
        """Ends a delivery, or sets the time of the next attempt."""
        same = (_jobs.c.id == webhook.job_id) & (_jobs.c.webhook_attempts == webhook.attempt)
        due = None if retry_in_ms is None else self._now() + retry_in_ms
        connection.execute(_jobs.update().where(same & _jobs.c.webhook_due_at.is_not(None)).values(webhook_due_at=due))

    @_reads
    def snapshot(self, connection: sa.Connection, job_id: str) -> tuple[Job | None, list[str]]:
        """As `output`, but also after its time: a webhook hears of it all the same."""
        job = _find(connection, job_id, 0)
        return job, _read_items(connection, job_id, 0) if job and job.status is Status.COMPLETED else []

    async def migrate(self, migrations: Sequence[Migration] | None = None) -> None:
        """Brings the schema to the version of this code. Several processes may do so at once.

        Raises:
            ConfigurationError: the database was made by a newer version.
        """
        await self._migrate(MIGRATIONS if migrations is None else migrations)

    @_writes
    def _migrate(self, connection: sa.Connection, migrations: Sequence[Migration]) -> None:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        _migrate(connection, migrations)


def now_ms() -> int:
    """The time now, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def open_store(url: str | None, file: Path, clock: Clock = now_ms) -> AsyncIterator[JobStore]:
    """Opens the store, makes or migrates its schema, and closes it on leaving.

    Args:
        url: SQLAlchemy's URL of a database, or None.
        file: where SQLite keeps the jobs if there is no URL.
        clock: the time in milliseconds since 1970.

    Raises:
        ConfigurationError: the URL is none, or of another database, or the schema is newer than this code.
        StoreUnavailableError: the database does not answer.
    """
    checked = _checked_url(url) if url else _file_url(file)
    database: _Database = _Sqlite(checked) if checked.get_backend_name() == "sqlite" else _Postgresql(checked)
    try:
        store = JobStore(database, clock)
        await store.migrate()
        yield store
    finally:
        await database.close()


def _file_url(file: Path) -> sa.URL:
    return sa.URL.create("sqlite", database=str(file))


_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}


def _checked_url(text: str) -> sa.URL:
    """The URL with its driver. It is not shown in errors: it may hold a password."""
    try:
        url = sa.make_url(text)
    except sa.exc.ArgumentError:
        raise ConfigurationError(
            "JOB_STORE_URL is not a URL such as postgresql+asyncpg://user@host/database."
        ) from None
    driver = _DRIVERS.get(url.drivername, url.drivername)
    if driver not in _DRIVERS.values():
        known = ", ".join(sorted(set(_DRIVERS.values())))
        raise ConfigurationError(f"JOB_STORE_URL must begin with one of {known}, got {url.drivername}.")
    return url.set(drivername=driver)


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # the driver would begin transactions late, and as readers
    cursor = connection.cursor()
    for pragma in (
        "journal_mode = WAL",
        "synchronous = NORMAL",  # safe against the death of the process; only a power cut may lose the last moment
        "journal_size_limit = 67108864",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("gptoss_writes")
    # A transaction that turned from reader to writer could meet another writer and would have to start again.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _migrate(connection: sa.Connection, migrations: Sequence[Migration]) -> None:
    _version.create(connection, checkfirst=True)
    version = connection.execute(sa.select(_version.c.version)).scalar()
    if version is not None and version > len(migrations):
        raise ConfigurationError(
            f"The job store has schema version {version}, made by a newer gptoss-bento; this knows {len(migrations)}."
        )
    for step in migrations[version or 0 :]:
        step(connection)
    if version is None:
        connection.execute(_version.insert().values(version=len(migrations)))
    else:
        connection.execute(_version.update().values(version=len(migrations)))


class _translated:  # noqa: N801  # reads as a statement: `with _translated():`
    """Turns what the database or its driver raises, where it is not a mistake of ours, into StoreUnavailableError."""

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        ours = (sa.exc.IntegrityError, sa.exc.ProgrammingError, sa.exc.DataError)
        theirs = (sa.exc.DBAPIError, sa.exc.TimeoutError, OSError, TimeoutError)
        if isinstance(error, theirs) and not isinstance(error, ours):
            cause = getattr(error, "orig", None) or error
            first_line = (str(cause).strip() or type(cause).__name__).splitlines()[0]
            raise StoreUnavailableError(f"The job store cannot be used now: {first_line}") from error


# --- statements ------------------------------------------------------------------------------------------------------


def _change(status: Status, where: sa.ColumnElement[bool], from_: Collection[Status] | None = None) -> sa.Update:
    """An update that leads jobs into a state, from those states alone that it may follow."""
    origins = before(status) & frozenset(from_) if from_ is not None else before(status)
    return _jobs.update().where(where, _jobs.c.status.in_(sorted(origins))).values(status=status.value)


def _among(chosen: sa.Select[Any]) -> sa.ColumnElement[bool]:
    """The jobs of a selection by `seq`. As a CTE, for PostgreSQL may run a subquery several times, with other rows."""
    return _jobs.c.seq.in_(sa.select(chosen.cte("chosen").c.seq))


def _due_webhooks(now: int, limit: int) -> sa.Select[Any]:
    due = _jobs.c.webhook_due_at <= now
    return sa.select(_jobs.c.seq).where(due).order_by(_jobs.c.webhook_due_at).limit(limit)


def _is_run(claim: Claim) -> sa.ColumnElement[bool]:
    return _run_of(claim.id, claim.attempt, claim.worker_id)


def _run_of(job_id: Any, attempt: Any, worker_id: Any) -> sa.ColumnElement[bool]:
    return sa.and_(
        _jobs.c.id == job_id,
        _jobs.c.attempt == attempt,
        _jobs.c.worker_id == worker_id,
        _jobs.c.status == Status.IN_PROGRESS,
    )


def _new_row(job: NewJob, now: int) -> dict[str, Any]:
    return {
        "id": job.id,
        "status": Status.IN_QUEUE.value,
        "low_priority": job.low_priority,
        "queued_at": now,
        "expires_at": now + job.ttl_ms,
        "execution_timeout_ms": job.execution_timeout_ms,
        "ttl_ms": job.ttl_ms,
        "result_ttl_ms": job.result_ttl_ms,
        "webhook": job.webhook,
        "owner": job.owner,
        "key_limits": job.key_limits,
        **dict.fromkeys(("attempt", "retries", "recoveries", "item_count", "delivered", "webhook_attempts"), 0),
    }


def _queued_again() -> dict[str, Any]:
    nothing = dict.fromkeys(("started_at", "ended_at", "worker_id", "error", "webhook_due_at"))
    counts = {"item_count": 0, "delivered": 0, "webhook_attempts": 0, "retries": _jobs.c.retries + 1}
    return {**nothing, **counts, "refused": False}


def _ended(now: Any, error: Any = None) -> dict[str, Any]:
    """What a job gets at its end: its result is kept for a time, but not beyond the job's time to live."""
    return {
        "ended_at": now,
        "error": error,
        "expires_at": _least(_jobs.c.expires_at, now + _jobs.c.result_ttl_ms),
        "webhook_due_at": sa.case((_jobs.c.webhook.is_not(None), now), else_=None),
        "webhook_attempts": 0,
    }


def _storable(text: str | None) -> str | None:
    """Without what PostgreSQL's text or UTF-8 cannot hold."""
    return text and text.encode("utf-8", "replace").decode().replace("\0", "")


def _least(one: Any, other: Any) -> sa.ColumnElement[int]:
    return sa.case((one < other, one), else_=other)


def _job(row: Any) -> Job:
    return Job(**{**row._mapping, "status": Status(row.status)})


def _find(connection: sa.Connection, job_id: str, now: int, *, lock: bool = False) -> Job | None:
    query = _FIND_AND_LOCK if lock else _FIND
    row = connection.execute(query, {"wanted": job_id, "now": now}).one_or_none()
    return _job(row) if row else None


def _read_items(connection: sa.Connection, job_id: str, start: int) -> list[str]:
    return list(connection.execute(_READ_ITEMS, {"job": job_id, "start": start}).scalars())


def _append(connection: sa.Connection, claim: Claim, first: int, items: Sequence[str]) -> bool:
    after = first + len(items)
    if not connection.execute(_GROW, {**_run(claim), "first": first, "after": after}).rowcount:
        written = sa.select(_jobs.c.seq).where(_is_run(claim), _jobs.c.item_count == after)
        return (connection.execute(written)).first() is not None  # an earlier try came through after all
    rows = [{"job_id": claim.id, "position": first + i, "output": item} for i, item in enumerate(items)]
    connection.execute(_INSERT_ITEMS, rows)
    return True


# Those of every job, made once: making them took two thirds of a job's time in the database (measured).
_OWN_RUN = _run_of(
    sa.bindparam("run_id", type_=sa.Text()),
    sa.bindparam("run_attempt", type_=sa.Integer()),
    sa.bindparam("run_worker", type_=sa.Text()),
)
_FIND = sa.select(*_JOB_COLUMNS).where(
    _jobs.c.id == sa.bindparam("wanted", type_=sa.Text()),
    _jobs.c.expires_at > sa.bindparam("now", type_=sa.BigInteger()),
)
_FIND_AND_LOCK = _FIND.with_for_update()
_READ_ITEMS = (
    sa.select(_items.c.output)
    .where(_items.c.job_id == sa.bindparam("job"), _items.c.position >= sa.bindparam("start"))
    .order_by(_items.c.position)
)
_COUNT_WAITING = sa.select(sa.func.count()).select_from(_jobs).where(_jobs.c.status == Status.IN_QUEUE)
_INSERT_JOB = _jobs.insert().returning(*_JOB_COLUMNS)
_INSERT_INPUT = _inputs.insert()
_INSERT_ITEMS = _items.insert()
_GROW = (
    _jobs.update()
    .where(_OWN_RUN, _jobs.c.item_count == sa.bindparam("first", type_=sa.Integer()))
    .values(item_count=sa.bindparam("after", type_=sa.Integer()))
)
_END_RUN = {
    status: _change(status, _OWN_RUN)
    .values(_ended(sa.bindparam("end", type_=sa.BigInteger()), sa.bindparam("cause", type_=sa.Text())))
    .values(refused=sa.bindparam("at_fault", type_=sa.Boolean()))
    .returning(*_JOB_COLUMNS)
    for status in Status
    if status.is_terminal
}


def _run(claim: Claim) -> dict[str, Any]:
    return {"run_id": claim.id, "run_attempt": claim.attempt, "run_worker": claim.worker_id}


def _queue_length(connection: sa.Connection) -> int:
    return int(connection.execute(_COUNT_WAITING).scalar_one())


def _refuse_overflow(connection: sa.Connection, most: int) -> int:
    """How many wait."""
    waiting = _queue_length(connection)
    if most - _FAR < waiting < most:  # at a distance others may come in meanwhile, and nobody needs to wait
        _alone(connection, "")
        waiting = _queue_length(connection)
    if waiting >= most:
        raise QueueFullError(f"{most} jobs wait already.")
    return waiting


def _refuse_crowd(connection: sa.Connection, owner: str | None, most: int) -> None:
    _alone(connection, owner or "")
    not_ended = _jobs.c.status.in_((Status.IN_QUEUE, Status.IN_PROGRESS))
    of_owner = sa.select(sa.func.count()).select_from(_jobs).where(not_ended & (_jobs.c.owner == owner))
    if connection.execute(of_owner).scalar_one() >= most:
        raise QueueFullError(f"This key may have {most} jobs at once. Try again later.")


_ALONE = sa.text(
    # By the table's number, for there may be several stores in one database.
    "SELECT pg_advisory_xact_lock('jobs'::regclass::oid::integer, hashtext(:owner)), "
    f"set_config('idle_in_transaction_session_timeout', '{_ALONE_TIMEOUT_MS}', true)"
)


def _alone(connection: sa.Connection, owner: str) -> None:
    """Until this transaction ends no other counts the jobs of this owner, or those that wait (""), to add one.

    SQLite has one writer in any case. PostgreSQL ends the session of a process that stands still meanwhile, or is cut
    off, for which all would wait.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_ALONE, {"owner": owner})


def _add_to_totals(connection: sa.Connection, deleted: Sequence[Any]) -> None:
    added = {
        "completed": sum(row.status == Status.COMPLETED for row in deleted),
        "failed": sum(row.status in RETRYABLE for row in deleted),
        "retried": sum(row.retries for row in deleted),
    }
    for name, count in sorted(added.items()):
        if count:
            change = _totals.update().where(_totals.c.name == name).values(count=_totals.c.count + count)
            if not (connection.execute(change)).rowcount:
                connection.execute(_totals.insert().values(name=name, count=count))


def _in_portions(ids: Collection[str]) -> list[list[str]]:
    """SQLite takes a limited number of parameters in one statement."""
    ordered = list(ids)
    return [ordered[i : i + 500] for i in range(0, len(ordered), 500)]
