"""The store of responses: what /v1/responses was asked and has answered, each for its owner alone.

What makes a response knows it by its row: its id may be used again. A response continues another by that one's row
(`previous_seq`), and its history is read along this chain. What an owner deletes, what expires and what exceeds the
owner's bound is not found from then on; its row goes once no response continues it. Times are milliseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

import sqlalchemy as sa

from gptoss_bento.state import idempotency
from gptoss_bento.state.clock import Clock
from gptoss_bento.state.conversation_turns import begin_turn, end_turn
from gptoss_bento.state.database import Database
from gptoss_bento.state.owned_rows import owners_of_more
from gptoss_bento.state.response import RUNNING, NewResponse, Page, ResponseStatus, StoredItem, StoredResponse, changed
from gptoss_bento.state.schema import (
    CONVERSATION_ITEMS,
    RESPONSE_EVENTS,
    RESPONSE_ITEMS,
    RESPONSE_REQUESTS,
    RESPONSES,
    WORKERS,
)
from gptoss_bento.state.statements import in_chunks, storable
from gptoss_bento.state.transactions import Store, reads, writes

WORKER_ENDED = "The worker that generated this response ended before it did."
AFTER_A_STREAM = f"{WORKER_ENDED} Part of it had been streamed by then, so it was not generated again."
AFTER_ANOTHER_RUN = f"{WORKER_ENDED} It was the second one, so the response was not generated again."
_DELETED_PER_TRANSACTION = 500
_ANSWERED = (ResponseStatus.COMPLETED, ResponseStatus.INCOMPLETE)
_OUTPUT_FROM = 1_000_000  # the position of the first item of an output; those of the request come before


class ResponseExistsError(Exception):
    """The owner has a response of this id."""


class UnknownResponseError(Exception):
    """The owner has no such response. That another owner has it makes no difference."""


class UnknownItemError(Exception):
    """The response has no item of this id."""


class ResponseStore(Store):
    """The responses of one database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        super().__init__(database)
        self._now = clock

    @property
    def clock(self) -> Clock:
        """Which further stores of the database may share."""
        return self._now

    # writing

    async def create(self, new: NewResponse, ttl_ms: int) -> int:
        """Stores a response that is about to be generated, with the items of its request. Returns its row.

        One of the same id that has no answer makes room: a client may try again under its `request_id`.

        Raises:
            KeyUsedError: the owner has used the Idempotency-Key before.
            ResponseExistsError: the owner has one of this id.
            UnknownResponseError: it continues a response that the owner does not have.
            ConversationLockedError, UnknownConversationError: it is no turn of its conversation as that is now.
        """
        try:
            return await self._create(new, ttl_ms)
        except sa.exc.IntegrityError:
            if not await self._hide_unanswered(new.owner, new.id):
                raise ResponseExistsError from None
            return await self.create(new, ttl_ms)

    @writes
    def _hide_unanswered(self, connection: sa.Connection, owner: str, response_id: str) -> bool:
        has_failed = RESPONSES.c.status.in_((ResponseStatus.FAILED, ResponseStatus.CANCELLED))
        has_expired = RESPONSES.c.expires_at <= self._now()
        is_unanswered = has_failed | has_expired | (is_lost() & ~may_run_again())
        unanswered = sa.select(RESPONSES.c.seq).where(_of(owner, response_id), is_unanswered)
        seq = connection.execute(unanswered.with_for_update()).scalar()
        if seq is not None:
            _hide(connection, seq)
        return seq is not None

    @writes
    def _create(self, connection: sa.Connection, new: NewResponse, ttl_ms: int) -> int:
        now, turn = self._now(), new.conversation
        if new.use is not None:
            idempotency.take(connection, new.owner, new.use, new.id, now)
        previous = _seq(connection, new.owner, new.previous, now) if new.previous is not None else None
        row = {
            "owner": new.owner,
            "id": new.id,
            "previous_seq": previous,
            "status": new.status.value,
            "worker_id": new.worker_id,
            "object": new.object,
            "event_count": 0,
            "keeps_events": new.keeps_events,
            "expires_at": now + ttl_ms,
            "attempt": new.attempt,
            "conversation_seq": turn and turn.seq,
            "conversation_position": turn and turn.next_position,
        }
        seq = int(connection.execute(_INSERT, row).scalar_one())
        if new.request is not None:
            kept = {"response_seq": seq, "request": new.request, "key_limits": new.key_limits}
            connection.execute(_INSERT_REQUEST, kept)
        if turn is not None:
            begin_turn(connection, turn, seq, now, now + ttl_ms)
        _add_items(connection, seq, new.input, 0, is_output=False)
        return seq

    @writes
    def forget(self, connection: sa.Connection, new: NewResponse) -> None:
        """Nothing generates this response: the database may have stored it although `create` was not answered."""
        is_it = (RESPONSES.c.worker_id == new.worker_id) & (RESPONSES.c.object == new.object)
        seq = connection.execute(sa.select(RESPONSES.c.seq).where(_of(new.owner, new.id), is_it)).scalar()
        if seq is not None:
            _hide(connection, seq)
            idempotency.release(connection, new.owner, new.id)

    @writes
    def start(self, connection: sa.Connection, row: int, object_text: str, attempt: int = 0) -> bool:
        """A queued response is generated from now on. Returns False if it has ended, or is another run's."""
        values = {"status": ResponseStatus.IN_PROGRESS.value, "object": object_text}
        queued = (
            (RESPONSES.c.seq == row) & (RESPONSES.c.status == ResponseStatus.QUEUED) & (RESPONSES.c.attempt == attempt)
        )
        return bool(connection.execute(RESPONSES.update().where(queued).values(values)).rowcount)

    @writes
    def append(self, connection: sa.Connection, row: int, first: int, events: Sequence[str], attempt: int = 0) -> bool:
        """Adds events to a running response, unless an earlier call added them.

        Returns False if it has ended, or is another run's.

        Args:
            row: of the response.
            first: the position of the first of these events.
            events: as JSON.
            attempt: the run that they are of.
        """
        found = connection.execute(_LOCKED_RUNNING, {"row": row, "run": attempt}).one_or_none()
        if found is None:
            return False
        _add_events(connection, row, found.event_count, events[found.event_count - first :])
        return True

    @writes
    def finish(
        self,
        connection: sa.Connection,
        row: int,
        status: ResponseStatus,
        object_text: str,
        output: Sequence[StoredItem] = (),
        events: Sequence[str] = (),
        attempt: int = 0,
    ) -> bool:
        """Ends a running response. Returns False if it has ended already, or is another run's: nothing is changed.

        An answer also ends one that counted as lost: its worker was late with its lease, and goes on.

        Args:
            row: of the response.
            status: its final state.
            object_text: its final object as JSON, without `output`.
            output: its items.
            events: those that come after what `append` has added.
            attempt: the run that ends it.
        """
        found = connection.execute(_LOCKED, {"row": row, "run": attempt}).one_or_none()
        if found is None or not _may_end(found, status):
            return False
        if events:
            _add_events(connection, row, found.event_count, events)
        _add_items(connection, row, output, _OUTPUT_FROM, is_output=True)
        end_response(connection, row, status, object_text)
        if found.conversation_seq is not None and status in _ANSWERED:
            end_turn(connection, found.conversation_seq, row)
        return True

    @writes
    def cancel(self, connection: sa.Connection, owner: str, response_id: str) -> StoredResponse | None:
        """Ends a running response as cancelled. Returns the response, unchanged if it had ended, or None."""
        row = _row(connection, owner, response_id, self._now(), lock=True)
        if row is None:
            return None
        if ResponseStatus(row.status) in RUNNING:
            end_response(connection, row.seq, ResponseStatus.CANCELLED, changed(row.object, ResponseStatus.CANCELLED))
            row = _row(connection, owner, response_id, self._now())
        return _stored(connection, row)

    @writes
    def fail(self, connection: sa.Connection, row: int, reason: str, attempt: int = 0) -> None:
        """Ends a running response as failed, with what is stored of it; one that has ended stays as it is."""
        if connection.execute(_LOCKED_RUNNING, {"row": row, "run": attempt}).one_or_none() is None:
            return
        text = connection.execute(sa.select(RESPONSES.c.object).where(RESPONSES.c.seq == row)).scalar_one()
        end_response(connection, row, ResponseStatus.FAILED, changed(text, ResponseStatus.FAILED, reason))

    @writes
    def discard(self, connection: sa.Connection, row: int) -> None:
        """There is no such response after all; its Idempotency-Key may be used again."""
        found = connection.execute(sa.select(RESPONSES.c.owner, RESPONSES.c.id).where(RESPONSES.c.seq == row)).first()
        if found is not None:
            idempotency.release(connection, found.owner, found.id)
            _hide(connection, row)

    @writes
    def delete(self, connection: sa.Connection, owner: str, response_id: str) -> bool:
        """Deletes a response; one that runs is cancelled. Returns whether there was one."""
        found = _seq_or_none(connection, owner, response_id, self._now())
        if found is None:
            return False
        _hide(connection, found)
        return True

    # reading

    @reads
    def get(self, connection: sa.Connection, owner: str, response_id: str) -> StoredResponse | None:
        """A response with its output, or None."""
        row = _row(connection, owner, response_id, self._now())
        return None if row is None else _stored(connection, row)

    @reads
    def history(self, connection: sa.Connection, owner: str, response_id: str) -> tuple[ResponseStatus, list[str]]:
        """The state of a response, and all items up to its end, of it and of those that it continues, the oldest first.

        Raises:
            UnknownResponseError: the owner has no such response.
        """
        row = _row(connection, owner, response_id, self._now())
        if row is None:
            raise UnknownResponseError
        items = connection.execute(_HISTORY, {"newest": row.seq}).scalars()
        return ResponseStatus(row.status), list(items)

    @reads
    def items(self, connection: sa.Connection, owner: str, ids: Collection[str]) -> dict[str, str]:
        """The JSON texts of those of these items that the owner has, by id."""
        found: dict[str, str] = {}
        for chunk in in_chunks({storable(each) or "" for each in ids}):
            visible = RESPONSES.c.seq == RESPONSE_ITEMS.c.response_seq
            of_owner = (RESPONSES.c.owner == owner) & (RESPONSES.c.expires_at > self._now())
            query = sa.select(RESPONSE_ITEMS.c.id, RESPONSE_ITEMS.c.item).join(RESPONSES, visible)
            rows = connection.execute(query.where(of_owner, RESPONSE_ITEMS.c.id.in_(chunk)))
            found |= {row.id: row.item for row in rows}
        return found

    @reads
    def input_items(
        self,
        connection: sa.Connection,
        owner: str,
        response_id: str,
        *,
        order: Literal["asc", "desc"],
        limit: int,
        after: str | None = None,
    ) -> Page:
        """The items of a response's request.

        Args:
            owner: of the response.
            response_id: its id.
            order: `asc`: as they were sent.
            limit: how many at most.
            after: the id of the item before the first.

        Raises:
            UnknownResponseError: the owner has no such response.
            UnknownItemError: `after` is none of its items.
        """
        seq = _seq(connection, owner, response_id, self._now())
        position = RESPONSE_ITEMS.c.position
        within = (RESPONSE_ITEMS.c.response_seq == seq) & ~RESPONSE_ITEMS.c.is_output
        if after is not None:
            start = connection.execute(
                sa.select(position).where(within, RESPONSE_ITEMS.c.id == storable(after))
            ).scalar()
            if start is None:
                raise UnknownItemError
            within &= position > start if order == "asc" else position < start
        query = sa.select(RESPONSE_ITEMS.c.id, RESPONSE_ITEMS.c.item).where(within).limit(limit + 1)
        rows = connection.execute(query.order_by(position if order == "asc" else position.desc())).all()
        return Page(tuple(StoredItem(row.id, row.item) for row in rows[:limit]), len(rows) > limit)

    @reads
    def events(
        self, connection: sa.Connection, owner: str, response_id: str, start: int
    ) -> tuple[StoredResponse, list[str]] | None:
        """A response without its output, and its events from the position `start` on; None: there is none."""
        row = _row(connection, owner, response_id, self._now())
        if row is None:
            return None
        events: list[str] = []
        if row.event_count > start:
            events = list(connection.execute(_READ_EVENTS, {"response": row.seq, "start": start}).scalars())
        return _record(row), events

    @reads
    def runs(self, connection: sa.Connection, row: int, attempt: int = 0) -> bool:
        """Whether a response is generated by this run, or waits for that."""
        return connection.execute(_RUNNING, {"row": row, "run": attempt}).one_or_none() is not None

    # periodic work

    async def evict(self, most: int) -> int:
        """Expires the oldest responses of each owner who has more than `most`, but for those that have not ended.

        Returns how many.
        """
        owners = await self._owners_of_more(most)
        return await self._evict(owners, most) if owners else 0

    @reads
    def _owners_of_more(self, connection: sa.Connection, most: int) -> list[str]:
        return owners_of_more(connection, RESPONSES, most, self._now())

    @writes
    def _evict(self, connection: sa.Connection, owners: Sequence[str], most: int) -> int:
        now, evicted = self._now(), 0
        visible = RESPONSES.c.expires_at > now
        for owner in owners:
            of_owner = visible & (RESPONSES.c.owner == owner)
            newest = sa.select(RESPONSES.c.seq).where(of_owner).order_by(RESPONSES.c.seq.desc())
            last = connection.execute(newest.offset(most).limit(1)).scalar()
            if last is None:  # another worker has evicted them meanwhile
                continue
            ended = RESPONSES.c.status.not_in(_RUNNING_VALUES)
            change = RESPONSES.update().where(of_owner, ended, RESPONSES.c.seq <= last).values(expires_at=now)
            evicted += connection.execute(change).rowcount
        return evicted

    @writes
    def clean(self, connection: sa.Connection) -> int:
        """Deletes some of the rows that no request finds, no response continues and no worker generates.

        Returns how many.
        """
        later = RESPONSES.alias("later")
        continued = sa.exists().where(later.c.previous_seq == RESPONSES.c.seq)
        # One that waits in the queue is not claimed any more when it has expired; one that runs still gets its answer.
        runs = RESPONSES.c.worker_id.is_not(None) & RESPONSES.c.status.in_(_RUNNING_VALUES)
        gone = (RESPONSES.c.expires_at <= self._now()) & ~continued & ~runs
        some = sa.select(RESPONSES.c.seq).where(gone).limit(_DELETED_PER_TRANSACTION).with_for_update(skip_locked=True)
        seqs = list(connection.execute(some).scalars())
        for table, column in (
            (RESPONSE_REQUESTS, RESPONSE_REQUESTS.c.response_seq),
            (RESPONSE_EVENTS, RESPONSE_EVENTS.c.response_seq),
            (RESPONSE_ITEMS, RESPONSE_ITEMS.c.response_seq),
            (RESPONSES, RESPONSES.c.seq),
        ):
            connection.execute(table.delete().where(column.in_(seqs)))
        return len(seqs)

    @writes
    def fail_lost(self, connection: sa.Connection) -> int:
        """Ends the running responses whose worker has no lease any more as failed. Returns how many.

        Those that may run again are left to `ResponseQueue.requeue_lost`.
        """
        lost = sa.select(*_LOST_COLUMNS).where(is_lost(), ~may_run_again())
        rows = list(connection.execute(lost.with_for_update()))
        for row in rows:
            text = changed(row.object, ResponseStatus.FAILED, _reason(row))
            end_response(connection, row.seq, ResponseStatus.FAILED, text)
        return len(rows)


def _of(owner: str, response_id: str) -> sa.ColumnElement[bool]:
    return (RESPONSES.c.owner == owner) & (RESPONSES.c.id == storable(response_id))


def may_run_again() -> sa.ColumnElement[bool]:
    """Whether a response that its worker did not end is generated once more: it has no reader, and ran once."""
    has_request = sa.exists().where(RESPONSE_REQUESTS.c.response_seq == RESPONSES.c.seq)
    return has_request & ~RESPONSES.c.is_followed & (RESPONSES.c.recoveries == 0)


def _reason(row: Any) -> str:
    """Why a response failed whose worker ended."""
    if row.is_followed:
        return AFTER_A_STREAM
    return AFTER_ANOTHER_RUN if row.recoveries else WORKER_ENDED


def is_lost() -> sa.ColumnElement[bool]:
    """Whether the worker that generates a response has no lease any more."""
    alive = sa.select(WORKERS.c.worker_id)
    return (RESPONSES.c.worker_id > "") & RESPONSES.c.worker_id.not_in(alive)  # by the index, without nulls


def _may_end(row: Any, status: ResponseStatus) -> bool:
    if ResponseStatus(row.status) in RUNNING:
        return True
    was_lost = row.status == ResponseStatus.FAILED and WORKER_ENDED in row.object
    return was_lost and status in _ANSWERED


def _row(connection: sa.Connection, owner: str, response_id: str, now: int, *, lock: bool = False) -> Any:
    query = _FIND_AND_LOCK if lock else _FIND
    return connection.execute(query, {"owner": owner, "wanted": storable(response_id), "now": now}).one_or_none()


def _seq_or_none(connection: sa.Connection, owner: str, response_id: str, now: int) -> int | None:
    row = _row(connection, owner, response_id, now)
    return None if row is None else int(row.seq)


def _seq(connection: sa.Connection, owner: str, response_id: str, now: int) -> int:
    seq = _seq_or_none(connection, owner, response_id, now)
    if seq is None:
        raise UnknownResponseError
    return seq


def _hidden_id(seq: int) -> str:
    """An id for a deleted row: the owner may use its former one again. No id of a client's has a line feed."""
    return f"deleted\n{seq}"


def _record(row: Any, output: Sequence[str] = ()) -> StoredResponse:
    return StoredResponse(
        id=row.id,
        status=ResponseStatus(row.status),
        object=row.object,
        event_count=row.event_count,
        keeps_events=row.keeps_events,
        output=tuple(output),
        row=row.seq,
        attempt=row.attempt,
        is_followed=row.is_followed,
    )


def _stored(connection: sa.Connection, row: Any) -> StoredResponse:
    return _record(row, connection.execute(_READ_OUTPUT, {"response": row.seq}).scalars().all())


def _add_items(
    connection: sa.Connection, seq: int, items: Sequence[StoredItem], first: int, *, is_output: bool
) -> None:
    rows = [
        {"response_seq": seq, "position": first + i, "is_output": is_output, "id": storable(item.id), "item": item.text}
        for i, item in enumerate(items)
    ]
    if rows:
        connection.execute(_INSERT_ITEMS, rows)


def _add_events(connection: sa.Connection, seq: int, first: int, events: Sequence[str]) -> None:
    rows = [{"response_seq": seq, "position": first + i, "event": event} for i, event in enumerate(events)]
    if rows:
        connection.execute(_INSERT_EVENTS, rows)
        connection.execute(_COUNT_EVENTS, {"grown_seq": seq, "count": first + len(rows)})


def end_response(connection: sa.Connection, seq: int, status: ResponseStatus, object_text: str) -> None:
    """Ends a response, which no worker generates any more."""
    connection.execute(_END, {"ended_seq": seq, "end": status.value, "final": object_text})
    connection.execute(_FORGET_REQUEST, {"answered_seq": seq})


def _hide(connection: sa.Connection, seq: int) -> None:
    """No request finds the response from now on."""
    connection.execute(_HIDE, {"hidden_seq": seq, "hidden": _hidden_id(seq)})
    connection.execute(_FORGET_REQUEST, {"answered_seq": seq})


# Built once, as those of the job store.
_RUNNING_VALUES = sorted(status.value for status in RUNNING)
_OWNED = (RESPONSES.c.owner == sa.bindparam("owner", type_=sa.Text())) & (
    RESPONSES.c.id == sa.bindparam("wanted", type_=sa.Text())
)
_FIND = sa.select(RESPONSES).where(_OWNED, RESPONSES.c.expires_at > sa.bindparam("now", type_=sa.BigInteger()))
_FIND_AND_LOCK = _FIND.with_for_update()
_RUNNING = sa.select(RESPONSES.c.event_count).where(
    RESPONSES.c.seq == sa.bindparam("row", type_=sa.BigInteger()),
    RESPONSES.c.attempt == sa.bindparam("run", type_=sa.Integer()),
    RESPONSES.c.status.in_(_RUNNING_VALUES),
)
_LOCKED_RUNNING = _RUNNING.with_for_update()
_LOCKED = (
    sa.select(RESPONSES.c.event_count, RESPONSES.c.status, RESPONSES.c.object, RESPONSES.c.conversation_seq)
    .where(
        RESPONSES.c.seq == sa.bindparam("row", type_=sa.BigInteger()),
        RESPONSES.c.attempt == sa.bindparam("run", type_=sa.Integer()),
    )
    .with_for_update()
)
_LOST_COLUMNS = [RESPONSES.c[name] for name in ("seq", "object", "is_followed", "recoveries")]
_INSERT_REQUEST = RESPONSE_REQUESTS.insert()
_FORGET_REQUEST = RESPONSE_REQUESTS.delete().where(RESPONSE_REQUESTS.c.response_seq == sa.bindparam("answered_seq"))
_INSERT = RESPONSES.insert().returning(RESPONSES.c.seq)
_INSERT_ITEMS = RESPONSE_ITEMS.insert()
_INSERT_EVENTS = RESPONSE_EVENTS.insert()
_COUNT_EVENTS = (
    RESPONSES.update()
    .where(RESPONSES.c.seq == sa.bindparam("grown_seq"))
    .values(event_count=sa.bindparam("count", type_=sa.Integer()))
)
_END = (
    RESPONSES.update()
    .where(RESPONSES.c.seq == sa.bindparam("ended_seq"))
    .values(
        status=sa.bindparam("end", type_=sa.Text()), object=sa.bindparam("final", type_=sa.Text()), worker_id=sa.null()
    )
)
_HIDE = (
    RESPONSES.update()
    .where(RESPONSES.c.seq == sa.bindparam("hidden_seq"))
    .values(
        id=sa.bindparam("hidden", type_=sa.Text()),
        status=ResponseStatus.CANCELLED.value,
        worker_id=sa.null(),
        expires_at=0,
    )
)
_READ_OUTPUT = (
    sa.select(RESPONSE_ITEMS.c.item)
    .where(RESPONSE_ITEMS.c.response_seq == sa.bindparam("response"), RESPONSE_ITEMS.c.is_output)
    .order_by(RESPONSE_ITEMS.c.position)
)
_READ_EVENTS = (
    sa.select(RESPONSE_EVENTS.c.event)
    .where(
        RESPONSE_EVENTS.c.response_seq == sa.bindparam("response"),
        RESPONSE_EVENTS.c.position >= sa.bindparam("start"),
    )
    .order_by(RESPONSE_EVENTS.c.position)
)


def _history_query() -> sa.Select[Any]:
    """The items of a chain of responses, the oldest first, behind those that its first one found in a conversation."""
    columns = [RESPONSES.c[name] for name in ("seq", "previous_seq", "conversation_seq", "conversation_position")]
    newest = sa.select(*columns).where(RESPONSES.c.seq == sa.bindparam("newest"))
    chain = newest.cte("chain", recursive=True)
    chain = chain.union_all(sa.select(*columns).join(chain, RESPONSES.c.seq == chain.c.previous_seq))
    conversed = (CONVERSATION_ITEMS.c.conversation_seq == chain.c.conversation_seq) & (
        CONVERSATION_ITEMS.c.position < chain.c.conversation_position
    )
    before_all = sa.literal_column("0", sa.BigInteger()).label("response_seq")
    earlier = sa.select(before_all, CONVERSATION_ITEMS.c.position, CONVERSATION_ITEMS.c.item).join(chain, conversed)
    of_chain = [RESPONSE_ITEMS.c[name] for name in ("response_seq", "position", "item")]
    items = sa.select(*of_chain).join(chain, RESPONSE_ITEMS.c.response_seq == chain.c.seq).union_all(earlier).subquery()
    return sa.select(items.c.item).order_by(items.c.response_seq, items.c.position)  # an earlier one has a lower seq


_HISTORY = _history_query()
