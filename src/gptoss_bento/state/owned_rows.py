"""Rows that belong to owners, each of whom may have so many: of responses, and of conversations.

Their tables have the columns `seq`, `owner` and `expires_at`; what has expired is not found any more.
"""

from __future__ import annotations

import sqlalchemy as sa


def owners_of_more(connection: sa.Connection, table: sa.Table, most: int, now: int) -> list[str]:
    """The owners who have more than `most` rows."""
    counts = sa.select(table.c.owner).where(table.c.expires_at > now).group_by(table.c.owner)
    return list(connection.execute(counts.having(sa.func.count() > most)).scalars())


def expire_beyond(connection: sa.Connection, table: sa.Table, owner: str, most: int, now: int) -> int:
    """Expires all rows of an owner but the `most` that would expire last. Returns how many."""
    of_owner = (table.c.expires_at > now) & (table.c.owner == owner)
    by_expiry = sa.tuple_(table.c.expires_at, table.c.seq)
    ordered = (
        sa.select(table.c.expires_at, table.c.seq)
        .where(of_owner)
        .order_by(table.c.expires_at.desc(), table.c.seq.desc())
    )
    last = connection.execute(ordered.offset(most).limit(1)).one_or_none()
    if last is None:  # another worker has expired them meanwhile
        return 0
    beyond = table.update().where(of_owner, by_expiry <= sa.tuple_(last.expires_at, last.seq)).values(expires_at=now)
    return connection.execute(beyond).rowcount
