"""SQL of the job store: conditions, values and prepared statements."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from gptoss_bento.state.job import RETRYABLE, Claim, Job, NewJob, Status, before
from gptoss_bento.state.schema import INPUTS, ITEMS, JOBS, TOTALS

COUNTED_TOTALS = sa.select(TOTALS.c.name, TOTALS.c.count.label("number"))
JOB_COLUMNS = [JOBS.c[name] for name in Job.__dataclass_fields__]


def transition(status: Status, where: sa.ColumnElement[bool], from_: Collection[Status] | None = None) -> sa.Update:
    """An update that changes the state of jobs, limited to the states from which that is allowed."""
    origins = before(status) & frozenset(from_) if from_ is not None else before(status)
    return JOBS.update().where(where, JOBS.c.status.in_(sorted(origins))).values(status=status.value)


def is_among(chosen: sa.Select[Any]) -> sa.ColumnElement[bool]:
    """The jobs that a query selects by `seq`. A CTE: PostgreSQL may run a subquery repeatedly, with other rows."""
    return JOBS.c.seq.in_(sa.select(chosen.cte("chosen").c.seq))


def is_waiting(now: int) -> sa.ColumnElement[bool]:
    """The jobs that wait in the queue and have not expired."""
    return (JOBS.c.status == Status.IN_QUEUE) & (JOBS.c.expires_at > now)


def due_webhooks(now: int, limit: int) -> sa.Select[Any]:
    """The jobs whose webhook is to be sent by `now`, the longest due first."""
    due = JOBS.c.webhook_due_at <= now
    return sa.select(JOBS.c.seq).where(due).order_by(JOBS.c.webhook_due_at).limit(limit)


def is_run(claim: Claim) -> sa.ColumnElement[bool]:
    """The job of a claim, unless the claim has been lost."""
    return _run_of(claim.id, claim.attempt, claim.worker_id)


def _run_of(job_id: Any, attempt: Any, worker_id: Any) -> sa.ColumnElement[bool]:
    return sa.and_(
        JOBS.c.id == job_id,
        JOBS.c.attempt == attempt,
        JOBS.c.worker_id == worker_id,
        JOBS.c.status == Status.IN_PROGRESS,
    )


def new_row(job: NewJob, now: int) -> dict[str, Any]:
    """The values of a job that is accepted `now`."""
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


def values_requeued() -> dict[str, Any]:
    """The values of a job that goes back into the queue."""
    nothing = dict.fromkeys(("started_at", "ended_at", "worker_id", "error", "webhook_due_at"))
    counts = {"item_count": 0, "delivered": 0, "webhook_attempts": 0, "retries": JOBS.c.retries + 1}
    return {**nothing, **counts, "refused": False}


def values_at_end(now: Any, error: Any = None) -> dict[str, Any]:
    """The values of a job that ends. Its result is kept for a time, but not beyond the job's time to live."""
    return {
        "ended_at": now,
        "error": error,
        "expires_at": least(JOBS.c.expires_at, now + JOBS.c.result_ttl_ms),
        "webhook_due_at": sa.case((JOBS.c.webhook.is_not(None), now), else_=None),
        "webhook_attempts": 0,
    }


def storable(text: str | None) -> str | None:
    """Removes what PostgreSQL's text or UTF-8 cannot hold."""
    return text and text.encode("utf-8", "replace").decode().replace("\0", "")


def least(one: Any, other: Any) -> sa.ColumnElement[int]:
    """The smaller of two numbers."""
    return sa.case((one < other, one), else_=other)


def to_job(row: Any) -> Job:
    """The job of a row with JOB_COLUMNS."""
    return Job(**{**row._mapping, "status": Status(row.status)})


def find_job(connection: sa.Connection, job_id: str, now: int, *, lock: bool = False) -> Job | None:
    """A job that has not expired by `now`; with `lock`, its row is locked until the transaction ends."""
    query = _FIND_AND_LOCK if lock else _FIND
    row = connection.execute(query, {"wanted": job_id, "now": now}).one_or_none()
    return to_job(row) if row else None


def read_items(connection: sa.Connection, job_id: str, start: int) -> list[str]:
    """The output of a job from the position `start` on."""
    return list(connection.execute(_READ_ITEMS, {"job": job_id, "start": start}).scalars())


def append_items(connection: sa.Connection, claim: Claim, first: int, items: Sequence[str]) -> bool:
    """Adds output to a running job, unless an earlier call added it. Returns False if the claim has been lost."""
    after = first + len(items)
    if not connection.execute(_GROW, {**run_parameters(claim), "first": first, "after": after}).rowcount:
        written = sa.select(JOBS.c.seq).where(is_run(claim), JOBS.c.item_count == after)
        return (connection.execute(written)).first() is not None  # an earlier call was committed after all
    rows = [{"job_id": claim.id, "position": first + i, "output": item} for i, item in enumerate(items)]
    connection.execute(_INSERT_ITEMS, rows)
    return True


# Statements that every job needs are built once: building them took two thirds of a job's database time (measured).
_OWN_RUN = _run_of(
    sa.bindparam("run_id", type_=sa.Text()),
    sa.bindparam("run_attempt", type_=sa.Integer()),
    sa.bindparam("run_worker", type_=sa.Text()),
)
_FIND = sa.select(*JOB_COLUMNS).where(
    JOBS.c.id == sa.bindparam("wanted", type_=sa.Text()),
    JOBS.c.expires_at > sa.bindparam("now", type_=sa.BigInteger()),
)
_FIND_AND_LOCK = _FIND.with_for_update()
_READ_ITEMS = (
    sa.select(ITEMS.c.output)
    .where(ITEMS.c.job_id == sa.bindparam("job"), ITEMS.c.position >= sa.bindparam("start"))
    .order_by(ITEMS.c.position)
)
_COUNT_WAITING = sa.select(sa.func.count()).select_from(JOBS).where(JOBS.c.status == Status.IN_QUEUE)
INSERT_JOB = JOBS.insert().returning(*JOB_COLUMNS)
INSERT_INPUT = INPUTS.insert()
_INSERT_ITEMS = ITEMS.insert()
_GROW = (
    JOBS.update()
    .where(_OWN_RUN, JOBS.c.item_count == sa.bindparam("first", type_=sa.Integer()))
    .values(item_count=sa.bindparam("after", type_=sa.Integer()))
)
END_RUN = {
    status: transition(status, _OWN_RUN)
    .values(values_at_end(sa.bindparam("end", type_=sa.BigInteger()), sa.bindparam("cause", type_=sa.Text())))
    .values(refused=sa.bindparam("at_fault", type_=sa.Boolean()))
    .returning(*JOB_COLUMNS)
    for status in Status
    if status.is_terminal
}


def run_parameters(claim: Claim) -> dict[str, Any]:
    """The parameters of the statements that name a run."""
    return {"run_id": claim.id, "run_attempt": claim.attempt, "run_worker": claim.worker_id}


def queue_length(connection: sa.Connection) -> int:
    """How many jobs wait."""
    return int(connection.execute(_COUNT_WAITING).scalar_one())


def add_to_totals(connection: sa.Connection, deleted: Sequence[Any]) -> None:
    """Counts jobs that are deleted."""
    added = {
        "completed": sum(row.status == Status.COMPLETED for row in deleted),
        "failed": sum(row.status in RETRYABLE for row in deleted),
        "retried": sum(row.retries for row in deleted),
    }
    for name, count in sorted(added.items()):
        if count:
            change = TOTALS.update().where(TOTALS.c.name == name).values(count=TOTALS.c.count + count)
            if not (connection.execute(change)).rowcount:
                connection.execute(TOTALS.insert().values(name=name, count=count))


def in_chunks(ids: Collection[str]) -> list[list[str]]:
    """Splits ids into chunks: SQLite takes a limited number of parameters in one statement."""
    ordered = list(ids)
    return [ordered[i : i + 500] for i in range(0, len(ordered), 500)]
