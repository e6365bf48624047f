"""The values of Idempotency-Key that owners have used: which request each came with, and what that request made.

A value is stored in the transaction that stores what it made, so neither is there without the other, whenever the
process is killed. The functions work on a connection, for any store; times are milliseconds since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from gptoss_bento.state.clock import Clock
from gptoss_bento.state.database import Database
from gptoss_bento.state.schema import IDEMPOTENCY_KEYS
from gptoss_bento.state.transactions import Store, reads, writes

KEPT_MS = 86_400_000
"""How long a value is kept: a day, as Stripe and OpenAI do."""

_MOST_OF_OWNER = 100_000


@dataclass(frozen=True)
class IdempotentUse:
    """The value of a request's Idempotency-Key.

    Args:
        key: the value.
        fingerprint: of the request; another request has another one.
        replaces: the target of an earlier use that may be forgotten: it has given no answer.
    """

    key: str
    fingerprint: str
    replaces: str | None = None


@dataclass(frozen=True)
class EarlierUse:
    """A request that has come with the same value before, and the id of what it made."""

    fingerprint: str
    target: str


class KeyUsedError(Exception):
    """The owner has used this value before, a moment ago perhaps."""


def take(connection: sa.Connection, owner: str, use: IdempotentUse, target: str, now: int) -> None:
    """Stores the use of a value. On PostgreSQL it waits for a concurrent transaction with the same one.

    Args:
        connection: in the transaction that stores the target.
        owner: of the request.
        use: the value.
        target: the id of what the request makes.
        now: the time.

    Raises:
        KeyUsedError: the owner has used it before.
    """
    table = IDEMPOTENCY_KEYS
    is_over = (table.c.expires_at <= now) | (table.c.target == use.replaces)
    connection.execute(table.delete().where(table.c.owner == owner, table.c.key == use.key, is_over))
    insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)
    row = {"owner": owner, "key": use.key, "fingerprint": use.fingerprint, "target": target}
    stored = connection.execute(insert.values(**row, expires_at=now + KEPT_MS).on_conflict_do_nothing())
    if not stored.rowcount:
        raise KeyUsedError


def release(connection: sa.Connection, owner: str, target: str) -> None:
    """Forgets the value with which a target was made: there is no such target after all."""
    table = IDEMPOTENCY_KEYS
    connection.execute(table.delete().where(table.c.target == target, table.c.owner == owner))


class IdempotencyStore(Store):
    """The values of one database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        super().__init__(database)
        self._now = clock

    @reads
    def find(self, connection: sa.Connection, owner: str, key: str) -> EarlierUse | None:
        """The earlier use of a value, or None."""
        table = IDEMPOTENCY_KEYS
        is_it = (table.c.owner == owner) & (table.c.key == key) & (table.c.expires_at > self._now())
        row = connection.execute(sa.select(table.c.fingerprint, table.c.target).where(is_it)).one_or_none()
        return None if row is None else EarlierUse(row.fingerprint, row.target)

    async def clean(self) -> int:
        """Deletes some of the values whose time is over, and the oldest of owners with too many. Returns how many."""
        return await self._clean() if await self._any_over() else 0

    @reads
    def _any_over(self, connection: sa.Connection) -> bool:
        is_over = IDEMPOTENCY_KEYS.c.expires_at <= self._now()
        has_expired = connection.execute(sa.select(IDEMPOTENCY_KEYS.c.key).where(is_over).limit(1)).first()
        return has_expired is not None or bool(_owners_of_more(connection))

    @writes
    def _clean(self, connection: sa.Connection) -> int:
        expiry = IDEMPOTENCY_KEYS.c.expires_at
        deleted = connection.execute(IDEMPOTENCY_KEYS.delete().where(expiry <= self._now())).rowcount
        for owner in _owners_of_more(connection):
            of_owner = IDEMPOTENCY_KEYS.c.owner == owner
            newest = sa.select(expiry).where(of_owner).order_by(expiry.desc()).offset(_MOST_OF_OWNER).limit(1)
            last = connection.execute(newest).scalar()
            if last is not None:
                deleted += connection.execute(IDEMPOTENCY_KEYS.delete().where(of_owner, expiry <= last)).rowcount
        return deleted


def _owners_of_more(connection: sa.Connection) -> list[str]:
    counts = sa.select(IDEMPOTENCY_KEYS.c.owner).group_by(IDEMPOTENCY_KEYS.c.owner)
    return list(connection.execute(counts.having(sa.func.count() > _MOST_OF_OWNER)).scalars())
