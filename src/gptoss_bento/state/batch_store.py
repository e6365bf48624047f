"""The store of batches: what /v1/batches knows of each, and which worker runs it.

A worker claims a batch that no living worker has. Each claim is a further attempt, and only the newest may write, so
that a worker whose lease has expired cannot end a batch that runs elsewhere. Each owner finds its own batches alone.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from typing import Any

import sqlalchemy as sa

from gptoss_bento.state import idempotency
from gptoss_bento.state.batch import (
    UNFINISHED,
    BatchClaim,
    BatchEnd,
    BatchPage,
    BatchStatus,
    NewBatch,
    OutputFile,
    StoredBatch,
)
from gptoss_bento.state.clock import Clock
from gptoss_bento.state.database import Database
from gptoss_bento.state.file import NewFile
from gptoss_bento.state.file_store import add_file, find_file
from gptoss_bento.state.idempotency import IdempotentUse
from gptoss_bento.state.schema import BATCHES, WORKERS
from gptoss_bento.state.statements import storable
from gptoss_bento.state.transactions import Store, reads, writes

OUTPUT_PURPOSE = "batch_output"
_COLUMNS = [BATCHES.c[each.name] for each in fields(StoredBatch)]
_ENDED_AT = {
    BatchStatus.COMPLETED: "completed_at",
    BatchStatus.FAILED: "failed_at",
    BatchStatus.CANCELLED: "cancelled_at",
    BatchStatus.EXPIRED: "expired_at",
}


class BatchesFullError(Exception):
    """The owner has as many batches that have not ended as allowed. The text is for the client."""


class UnknownBatchError(Exception):
    """The owner has no such batch. That another owner has it makes no difference."""


class BatchStore(Store):
    """The batches of one database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        super().__init__(database)
        self._now_ms = clock

    def _now(self) -> int:
        return self._now_ms() // 1000

    # requests of clients

    @writes
    def create(
        self, connection: sa.Connection, new: NewBatch, most: int, use: IdempotentUse | None = None
    ) -> StoredBatch:
        """Stores a batch, which the next worker with room claims.

        Args:
            new: the batch.
            most: batches of an owner that have not ended.
            use: of the client's Idempotency-Key.

        Raises:
            BatchesFullError: the owner has `most` that have not ended.
            KeyUsedError: the owner has used the Idempotency-Key before.
            UnknownFileError: the owner has no such input file.
        """
        if use is not None:
            idempotency.take(connection, new.owner, use, new.id, self._now_ms())
        file = find_file(connection, new.owner, new.input_file_id, self._now_ms())
        unfinished = sa.select(sa.func.count()).where(BATCHES.c.owner == new.owner, _is_unfinished())
        if connection.execute(unfinished).scalar_one() >= most:
            raise BatchesFullError(f"This key may have {most} batches that have not ended (BATCHES_MAX).")
        now = self._now()
        values = {name: getattr(new, name) for name in ("owner", "id", "endpoint", "key_limits", "metadata")}
        values |= {"input_file_id": file.id, "output_ttl_s": new.output_ttl_s}
        values |= {"status": BatchStatus.VALIDATING.value, "created_at": now, "expires_at": now + new.window_s}
        values |= {"kept_until": now + new.window_s + new.ttl_s, "total": 0, "completed": 0, "failed": 0}
        connection.execute(BATCHES.insert().values(values | {"attempt": 0, "interruptions": 0}))
        return _found(connection, new.owner, new.id, now)

    @reads
    def get(self, connection: sa.Connection, owner: str, batch_id: str) -> StoredBatch:
        """A batch.

        Raises:
            UnknownBatchError: the owner has none of this id.
        """
        return _found(connection, owner, batch_id, self._now())

    @reads
    def page(self, connection: sa.Connection, owner: str, limit: int, after: str | None = None) -> BatchPage:
        """The newest batches of an owner, or those before the batch `after`.

        Raises:
            UnknownBatchError: the owner has no batch `after`.
        """
        found = _visible(owner, self._now())
        if after is not None:
            it = _visible(owner, self._now()) & (BATCHES.c.id == storable(after))
            start = connection.execute(sa.select(BATCHES.c.seq).where(it)).scalar()
            if start is None:
                raise UnknownBatchError
            found &= BATCHES.c.seq < start
        query = sa.select(*_COLUMNS).where(found).order_by(BATCHES.c.seq.desc()).limit(limit + 1)
        rows = connection.execute(query).all()
        return BatchPage(tuple(map(_batch, rows[:limit])), len(rows) > limit)

    @writes
    def cancel(self, connection: sa.Connection, owner: str, batch_id: str) -> tuple[StoredBatch, bool]:
        """Asks for the end of a batch; its worker ends it. Returns it, and whether it had not ended.

        Raises:
            UnknownBatchError: the owner has none of this id.
        """
        it = _visible(owner, self._now()) & (BATCHES.c.id == storable(batch_id))
        running = it & _is_unfinished() & (BATCHES.c.status != BatchStatus.CANCELLING)
        values = {"status": BatchStatus.CANCELLING.value, "cancelling_at": self._now()}
        connection.execute(BATCHES.update().where(running).values(values))
        found = _found(connection, owner, batch_id, self._now())
        return found, found.status in UNFINISHED

    # running

    @reads
    def waits(self, connection: sa.Connection, full: Collection[str] = ()) -> bool:
        """Whether there is a batch to claim. A claim that finds none would cost a write transaction."""
        return connection.execute(sa.select(BATCHES.c.seq).where(_is_free(full)).limit(1)).first() is not None

    @writes
    def claim(self, connection: sa.Connection, worker_id: str, full: Collection[str] = ()) -> StoredBatch | None:
        """Claims a batch that no living worker runs: of the owner of whom the fewest run, the oldest.

        Args:
            worker_id: of the worker, which has a lease.
            full: owners of whom it runs as many as it may.
        """
        others = BATCHES.alias("others")
        run_by_owner = (
            sa.select(sa.func.count())
            .where(others.c.owner == BATCHES.c.owner, others.c.worker_id.is_not(None))
            .scalar_subquery()
        )
        first = sa.select(BATCHES.c.seq).where(_is_free(full)).order_by(run_by_owner, BATCHES.c.seq).limit(1)
        seq = connection.execute(first.with_for_update(skip_locked=True)).scalar()
        if seq is None:
            return None
        was_interrupted = sa.case((BATCHES.c.worker_id.is_not(None), 1), else_=0)
        values = {"worker_id": worker_id, "attempt": BATCHES.c.attempt + 1}
        values |= {"interruptions": BATCHES.c.interruptions + was_interrupted}
        claimed = BATCHES.update().where(BATCHES.c.seq == seq).values(values).returning(*_COLUMNS)
        return _batch(connection.execute(claimed).one())

    @reads
    def claims_of(self, connection: sa.Connection, worker_id: str) -> list[BatchClaim]:
        """What a worker has claimed and not ended."""
        query = sa.select(BATCHES.c.id, BATCHES.c.attempt).where(_is_unfinished(), BATCHES.c.worker_id == worker_id)
        return [BatchClaim(row.id, row.attempt) for row in connection.execute(query)]

    @writes
    def start(self, connection: sa.Connection, claim: BatchClaim, total: int, model: str | None) -> bool:
        """The input is right: its lines are run from now on. Returns False if it was cancelled, or lost."""
        values = {"status": BatchStatus.IN_PROGRESS.value, "in_progress_at": self._now()}
        validating = _is_claimed(claim) & (BATCHES.c.status == BatchStatus.VALIDATING)
        change = BATCHES.update().where(validating).values(values | {"total": total, "model": storable(model)})
        return bool(connection.execute(change).rowcount)

    @writes
    def report(self, connection: sa.Connection, claim: BatchClaim, completed: int, failed: int) -> None:
        """Counts the lines that have an answer."""
        values = {"completed": completed, "failed": failed}
        connection.execute(BATCHES.update().where(_is_claimed(claim)).values(values))

    @reads
    def status(self, connection: sa.Connection, claim: BatchClaim) -> BatchStatus | None:
        """The state of a claimed batch; None: the claim is lost."""
        status = connection.execute(sa.select(BATCHES.c.status).where(_is_claimed(claim))).scalar()
        return BatchStatus(status) if status else None

    @writes
    def finalize(self, connection: sa.Connection, claim: BatchClaim) -> None:
        """Each line has an answer."""
        values = {"status": BatchStatus.FINALIZING.value, "finalizing_at": self._now()}
        running = _is_claimed(claim) & (BATCHES.c.status == BatchStatus.IN_PROGRESS)
        connection.execute(BATCHES.update().where(running).values(values))

    @writes
    def finish(self, connection: sa.Connection, claim: BatchClaim, end: BatchEnd) -> bool:
        """Ends a batch, and makes its files visible with it. Returns False if the claim is lost.

        One whose cancellation comes after its last line is cancelled, with all its answers.
        """
        query = sa.select(BATCHES.c.owner, BATCHES.c.status, BATCHES.c.output_ttl_s).where(_is_claimed(claim))
        row = connection.execute(query.with_for_update()).one_or_none()
        if row is None or BatchStatus(row.status) not in UNFINISHED:
            return False
        status = BatchStatus.CANCELLED if row.status == BatchStatus.CANCELLING else end.status
        values: dict[str, Any] = {"status": status.value, _ENDED_AT[status]: self._now(), "worker_id": None}
        values |= {"completed": end.completed, "failed": end.failed, "errors": end.errors, "usage": end.usage}
        for file in end.files:
            values["error_file_id" if file.is_error else "output_file_id"] = file.id
            add_file(connection, _new_file(file, row.owner, row.output_ttl_s), self._now_ms())
        connection.execute(BATCHES.update().where(_is_claimed(claim)).values(values))
        return True

    @writes
    def give_back(self, connection: sa.Connection, claim: BatchClaim) -> None:
        """This worker ends: another one, or the next, goes on with the batch."""
        connection.execute(BATCHES.update().where(_is_claimed(claim)).values(worker_id=None))

    @writes
    def clean(self, connection: sa.Connection) -> int:
        """Deletes the batches that have been kept long enough. Returns how many."""
        old = ~_is_unfinished() & (BATCHES.c.kept_until <= self._now())
        return connection.execute(BATCHES.delete().where(old)).rowcount


def _is_unfinished() -> sa.ColumnElement[bool]:
    return BATCHES.c.status.in_(sorted(status.value for status in UNFINISHED))


def _is_free(full: Collection[str]) -> sa.ColumnElement[bool]:
    alive = sa.select(WORKERS.c.worker_id)
    is_wanted = _is_unfinished() & BATCHES.c.owner.not_in(full)
    return is_wanted & (BATCHES.c.worker_id.is_(None) | BATCHES.c.worker_id.not_in(alive))


def _is_claimed(claim: BatchClaim) -> sa.ColumnElement[bool]:
    return (BATCHES.c.id == claim.id) & (BATCHES.c.attempt == claim.attempt) & BATCHES.c.worker_id.is_not(None)


def _visible(owner: str, now: int) -> sa.ColumnElement[bool]:
    return (BATCHES.c.owner == owner) & ((BATCHES.c.kept_until > now) | _is_unfinished())


def _found(connection: sa.Connection, owner: str, batch_id: str, now: int) -> StoredBatch:
    found = _visible(owner, now) & (BATCHES.c.id == storable(batch_id))
    row = connection.execute(sa.select(*_COLUMNS).where(found)).one_or_none()
    if row is None:
        raise UnknownBatchError
    return _batch(row)


def _batch(row: Any) -> StoredBatch:
    values = dict(row._mapping)
    return StoredBatch(**values | {"status": BatchStatus(values["status"])})


def _new_file(file: OutputFile, owner: str, ttl_s: int) -> NewFile:
    return NewFile(owner, file.id, OUTPUT_PURPOSE, file.filename, file.bytes, file.stored_as, ttl_s * 1000)
