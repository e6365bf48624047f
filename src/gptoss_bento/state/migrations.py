"""The versions of the schema, and the step from each to the next."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import sqlalchemy as sa

from gptoss_bento.errors import ConfigurationError
from gptoss_bento.state.database import Database, connect
from gptoss_bento.state.schema import (
    BATCHES,
    CONVERSATION_ITEMS,
    CONVERSATIONS,
    FILES,
    IDEMPOTENCY_KEYS,
    JOBS,
    METADATA,
    RESPONSE_EVENTS,
    RESPONSE_ITEMS,
    RESPONSE_REQUESTS,
    RESPONSES,
    SECRETS,
)

_MIGRATION_LOCK = 0x67707462  # arbitrary, the same in all replicas
_VERSION = sa.Table("schema_version", METADATA, sa.Column("version", sa.Integer, nullable=False))


Migration = Callable[[sa.Connection], None]


def _first_schema(connection: sa.Connection) -> None:
    METADATA.create_all(connection)


def _add_refused(connection: sa.Connection) -> None:
    known = {column["name"] for column in sa.inspect(connection).get_columns(JOBS.name)}
    if "refused" not in known:  # in a new database the first step has made it
        connection.execute(sa.text("ALTER TABLE jobs ADD COLUMN refused BOOLEAN NOT NULL DEFAULT FALSE"))


def _add_owner(connection: sa.Connection) -> None:
    known = {column["name"] for column in sa.inspect(connection).get_columns(JOBS.name)}
    if "owner" not in known:
        connection.execute(sa.text("ALTER TABLE jobs ADD COLUMN owner TEXT"))


def _add_key_limits(connection: sa.Connection) -> None:
    known = {column["name"] for column in sa.inspect(connection).get_columns(JOBS.name)}
    if "key_limits" not in known:
        connection.execute(sa.text("ALTER TABLE jobs ADD COLUMN key_limits TEXT"))


def _add_responses(connection: sa.Connection) -> None:
    METADATA.create_all(connection, [RESPONSES, RESPONSE_ITEMS, RESPONSE_EVENTS])


def _add_conversations(connection: sa.Connection) -> None:
    METADATA.create_all(connection, [CONVERSATIONS, CONVERSATION_ITEMS])
    known = {column["name"] for column in sa.inspect(connection).get_columns(RESPONSES.name)}
    for name, kind in (("conversation_seq", "BIGINT"), ("conversation_position", "INTEGER")):
        if name not in known:
            connection.execute(sa.text(f"ALTER TABLE responses ADD COLUMN {name} {kind}"))


def _add_secrets(connection: sa.Connection) -> None:
    METADATA.create_all(connection, [SECRETS])


def _add_files_and_batches(connection: sa.Connection) -> None:
    METADATA.create_all(connection, [FILES, BATCHES])


_RUN_COLUMNS = {
    "attempt": "INTEGER NOT NULL DEFAULT 0",
    "recoveries": "INTEGER NOT NULL DEFAULT 0",
    "is_followed": "BOOLEAN NOT NULL DEFAULT FALSE",
}


def _add_background_runs(connection: sa.Connection) -> None:
    known = {column["name"] for column in sa.inspect(connection).get_columns(RESPONSES.name)}
    for name, kind in _RUN_COLUMNS.items():
        if name not in known:
            connection.execute(sa.text(f"ALTER TABLE responses ADD COLUMN {name} {kind}"))
    METADATA.create_all(connection, [RESPONSE_REQUESTS, IDEMPOTENCY_KEYS])


def _add_index_of_turns(connection: sa.Connection) -> None:
    for index in RESPONSES.indexes:
        if index.name == "responses_conversations":
            index.create(connection, checkfirst=True)


MIGRATIONS: list[Migration] = [
    _first_schema,
    _add_refused,
    _add_owner,
    _add_key_limits,
    _add_responses,
    _add_conversations,
    _add_secrets,
    _add_files_and_batches,
    _add_background_runs,
    _add_index_of_turns,
]
"""The n-th leads from version n to n + 1. What was released is never changed; a new one is added.

A worker of an older version may still use a database that a newer one has migrated, so a new column needs a default.
In a new database the first step makes all tables as they are now, and the later steps find nothing to change.
"""


@asynccontextmanager
async def open_database(url: str | None, file: Path) -> AsyncIterator[Database]:
    """Opens a database, makes or migrates its schema, and closes it on leaving.

    Args:
        url: SQLAlchemy's URL of a database, or None.
        file: where SQLite keeps everything if there is no URL.

    Raises:
        ConfigurationError: the URL is none, or of another database, or the schema is newer than this code.
        StoreUnavailableError: the database does not answer.
    """
    database = connect(url, file)
    try:
        await migrate(database)
        yield database
    finally:
        await database.close()


async def migrate(database: Database, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Brings the schema to the version of this code. Several processes may do so concurrently.

    Raises:
        ConfigurationError: the database was made by a newer version.
    """
    await database.run(lambda connection: _migrate(connection, migrations), writes=True)


def _migrate(connection: sa.Connection, migrations: Sequence[Migration]) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
    _VERSION.create(connection, checkfirst=True)
    version = connection.execute(sa.select(_VERSION.c.version)).scalar()
    if version is not None and version > len(migrations):
        raise ConfigurationError(
            f"The job store has schema version {version}, made by a newer gptoss-bento; this knows {len(migrations)}."
        )
    for step in migrations[version or 0 :]:
        step(connection)
    if version is None:
        connection.execute(_VERSION.insert().values(version=len(migrations)))
    else:
        connection.execute(_VERSION.update().values(version=len(migrations)))
