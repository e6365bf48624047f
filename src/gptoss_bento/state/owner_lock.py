"""A lock on what one owner has in a table, for limits at acceptance."""

from __future__ import annotations

import sqlalchemy as sa

LOCK_TIMEOUT_MS = 5_000


def lock_of(table: str) -> sa.TextClause:
    """PostgreSQL's statement that takes the lock of `:owner`, until its transaction ends.

    PostgreSQL ends the session of a process that holds the lock and is stopped or disconnected, so that the others do
    not wait for it.
    """
    return sa.text(
        # Keyed by the table's number, because one database may hold several stores.
        f"SELECT pg_advisory_xact_lock('{table}'::regclass::oid::integer, hashtext(:owner)), "
        f"set_config('idle_in_transaction_session_timeout', '{LOCK_TIMEOUT_MS}', true)"
    )


def take_lock(connection: sa.Connection, lock: sa.TextClause, owner: str) -> None:
    """Takes a lock of `lock_of`. SQLite needs none: it has one writer in any case."""
    if connection.dialect.name == "postgresql":
        connection.execute(lock, {"owner": owner})
