"""The responses in the background that have not ended: which wait, which worker generates which, and which run again.

They are rows of `responses` that have a request beside them (`response_requests`). A run is a row and an attempt: what
an earlier attempt writes has no effect. A response that its worker did not end runs again once, unless a client has had
an event of it, which `mark_followed` records before the first event leaves.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from gptoss_bento.state.clock import Clock
from gptoss_bento.state.database import Database
from gptoss_bento.state.response import RUNNING, ResponseStatus, changed
from gptoss_bento.state.response_store import is_lost, may_run_again
from gptoss_bento.state.schema import RESPONSE_EVENTS, RESPONSE_REQUESTS, RESPONSES
from gptoss_bento.state.transactions import Store, reads, writes


@dataclass(frozen=True)
class Waiting:
    """A response that no worker generates yet, and the limits that its key had when it came: JSON, or None."""

    row: int
    owner: str
    key_limits: str | None = None


@dataclass(frozen=True)
class Length:
    """How many responses wait: of all owners, and of one."""

    total: int
    of_owner: int


@dataclass(frozen=True)
class Claimed:
    """A response that a worker is to generate: `object` and `request` are the texts that were stored with it."""

    row: int
    attempt: int
    owner: str
    id: str
    object: str
    request: str


class ResponseQueue(Store):
    """The queue of one database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        super().__init__(database)
        self._now = clock

    @reads
    def length(self, connection: sa.Connection, owner: str) -> Length:
        """How many responses wait, and how many of this owner."""
        of_owner = sa.func.count(sa.case((RESPONSES.c.owner == owner, 1)))
        return Length(*connection.execute(_waiting(self._now(), sa.func.count(), of_owner)).one())

    @reads
    def waiting(self, connection: sa.Connection, without: Collection[str], limit: int) -> list[Waiting]:
        """Some of the responses that wait, the next one first: owners take turns, whatever each has queued.

        Args:
            connection: of the transaction.
            without: owners that may have no more now.
            limit: how many at most.
        """
        # Those that run have the first turns of their owner, so an owner with fewer of them comes first.
        order = RESPONSES.c.worker_id.is_(None), RESPONSES.c.seq
        turn = sa.func.row_number().over(partition_by=RESPONSES.c.owner, order_by=order)
        unfinished = (RESPONSES.c.expires_at > self._now()) & RESPONSES.c.owner.not_in(sorted(without))
        limits = RESPONSE_REQUESTS.c.key_limits
        columns = RESPONSES.c.seq, RESPONSES.c.owner, RESPONSES.c.worker_id, limits, turn.label("turn")
        turns = sa.select(*columns).join(RESPONSE_REQUESTS, _OF_REQUEST).where(unfinished).subquery()
        query = sa.select(turns.c.seq, turns.c.owner, turns.c.key_limits).where(turns.c.worker_id.is_(None))
        rows = connection.execute(query.order_by(turns.c.turn, turns.c.seq).limit(limit))
        return [Waiting(row.seq, row.owner, row.key_limits) for row in rows]

    @writes
    def claim(self, connection: sa.Connection, row: int, worker_id: str) -> Claimed | None:
        """Makes this worker generate a response that waits. Returns None if it does not wait any more."""
        values = {"worker_id": worker_id, "attempt": RESPONSES.c.attempt + 1}
        waits = (RESPONSES.c.seq == row) & (RESPONSES.c.status == ResponseStatus.QUEUED)
        claim = RESPONSES.update().where(waits, RESPONSES.c.worker_id.is_(None)).values(values)
        found = connection.execute(claim.returning(*_CLAIMED)).one_or_none()
        if found is None:
            return None
        of_row = RESPONSE_REQUESTS.c.response_seq == row
        request = connection.execute(sa.select(RESPONSE_REQUESTS.c.request).where(of_row)).scalar_one()
        return Claimed(row, found.attempt, found.owner, found.id, found.object, request)

    @writes
    def mark_followed(self, connection: sa.Connection, row: int, attempt: int) -> bool:
        """A client is about to get the first event of a run. Returns False if the run is over or was given up."""
        is_run = (RESPONSES.c.seq == row) & (RESPONSES.c.attempt == attempt) & _is_running()
        return bool(connection.execute(RESPONSES.update().where(is_run).values(is_followed=True)).rowcount)

    @writes
    def requeue(self, connection: sa.Connection, row: int, attempt: int, *, counts: bool) -> bool:
        """Puts a run that cannot go on here back into the queue, if it may run again. Returns whether it may.

        Args:
            connection: of the transaction.
            row: of the response.
            attempt: its run.
            counts: whether this takes the one further run that a response may have.
        """
        is_run = (RESPONSES.c.seq == row) & (RESPONSES.c.attempt == attempt) & _is_running()
        may = may_run_again() if counts else _has_no_reader()
        found = connection.execute(_RUNS.where(is_run, may).with_for_update()).all()
        _requeue(connection, found, counts=counts)
        return bool(found)

    @writes
    def unclaim(self, connection: sa.Connection, row: int, worker_id: str) -> None:
        """Requeues a response that this worker does not generate: the database may have stored a claim unanswered."""
        is_claimed = (RESPONSES.c.seq == row) & (RESPONSES.c.worker_id == worker_id) & _is_running()
        _requeue(connection, connection.execute(_RUNS.where(is_claimed).with_for_update()).all(), counts=False)

    async def requeue_lost(self) -> int:
        """Requeues the responses whose worker has no lease any more and that may run again. Returns how many."""
        return await self._requeue_lost() if await self._any_lost() else 0

    @reads
    def _any_lost(self, connection: sa.Connection) -> bool:
        return connection.execute(_RUNS.where(is_lost(), may_run_again()).limit(1)).first() is not None

    @writes
    def _requeue_lost(self, connection: sa.Connection) -> int:
        lost = _RUNS.where(is_lost(), may_run_again(), _is_running())
        found = connection.execute(lost.with_for_update(skip_locked=True)).all()
        _requeue(connection, found, counts=True)
        return len(found)


def _waiting(now: int, *columns: Any) -> sa.Select[Any]:
    waits = RESPONSES.c.worker_id.is_(None) & (RESPONSES.c.expires_at > now)
    return sa.select(*columns).select_from(RESPONSES).join(RESPONSE_REQUESTS, _OF_REQUEST).where(waits)


def _is_running() -> sa.ColumnElement[bool]:
    return RESPONSES.c.status.in_(sorted(status.value for status in RUNNING))


def _has_no_reader() -> sa.ColumnElement[bool]:
    return sa.exists().where(_OF_REQUEST) & ~RESPONSES.c.is_followed


def _requeue(connection: sa.Connection, found: Sequence[Any], *, counts: bool) -> None:
    """As if the runs had not been: nothing of them is left. What an older attempt writes later finds another number."""
    for row in found:
        values = {
            "status": ResponseStatus.QUEUED.value,
            "object": changed(row.object, ResponseStatus.QUEUED),
            "worker_id": None,
            "event_count": 0,
            "attempt": RESPONSES.c.attempt + 1,
            "recoveries": RESPONSES.c.recoveries + int(counts),
        }
        connection.execute(RESPONSES.update().where(RESPONSES.c.seq == row.seq).values(values))
        connection.execute(RESPONSE_EVENTS.delete().where(RESPONSE_EVENTS.c.response_seq == row.seq))


_OF_REQUEST = RESPONSE_REQUESTS.c.response_seq == RESPONSES.c.seq
_CLAIMED = [RESPONSES.c[name] for name in ("attempt", "owner", "id", "object")]
_RUNS = sa.select(RESPONSES.c.seq, RESPONSES.c.object)
