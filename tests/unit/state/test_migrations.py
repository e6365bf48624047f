"""Databases of older versions, and of newer ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from gptoss_bento.errors import ConfigurationError
from gptoss_bento.state.migrations import MIGRATIONS, migrate
from gptoss_bento.state.store import JobStore, open_store
from tests.stores import Clock
from tests.unit.state.stored import NEW, W, found, submit


async def test_database_is_opened_again_with_its_jobs(store: JobStore, store_url: str, clock: Clock) -> None:
    await submit(store, "a")
    async with open_store(store_url, Path("unused"), clock) as again:
        assert await again.get("a") == await store.get("a")


async def test_migrations_run_once_and_by_version(store: JobStore) -> None:
    ran: list[str] = []
    steps = [*MIGRATIONS, lambda _: ran.append("second"), lambda _: ran.append("third")]
    await migrate(store._database, steps)
    await migrate(store._database, steps)

    assert ran == ["second", "third"]
    with pytest.raises(ConfigurationError, match=r"schema version 12, made by a newer .* knows 10"):
        await migrate(store._database)


async def test_migrations_make_an_old_database_like_a_new_one(store: JobStore) -> None:
    def columns(connection: sa.Connection) -> list[tuple[str, str, bool]]:
        found = sa.inspect(connection).get_columns("jobs")
        return sorted((column["name"], str(column["type"]), column["nullable"]) for column in found)

    def as_it_was(connection: sa.Connection) -> None:
        connection.execute(sa.text("ALTER TABLE jobs DROP COLUMN refused"))
        connection.execute(sa.text("UPDATE schema_version SET version = 1"))

    new = await store._database.run(columns, writes=False)
    await submit(store, "a")
    await store._database.run(as_it_was, writes=True)
    await migrate(store._database)

    assert await store._database.run(columns, writes=False) == new
    assert (job := await store.get("a"))
    assert job.refused is False


async def test_migration_that_fails_changes_nothing(store: JobStore) -> None:
    def make_table(connection: sa.Connection) -> None:
        connection.execute(sa.text("CREATE TABLE half (x INTEGER)"))

    def fail(connection: sa.Connection) -> None:
        make_table(connection)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await migrate(store._database, [*MIGRATIONS, fail])
    await migrate(store._database, [*MIGRATIONS, make_table])


async def test_migration_adds_the_column_of_owners(store: JobStore) -> None:
    def drop(connection: sa.Connection) -> None:
        connection.execute(sa.text("ALTER TABLE jobs DROP COLUMN owner"))
        connection.execute(sa.text("UPDATE schema_version SET version = 1"))

    await store._database.run(drop, writes=True)
    await migrate(store._database)

    await store.submit(replace(NEW, owner="alice"), 1)
    assert (await store.claim(W, 1))[0].owner == "alice"


async def test_migration_adds_the_column_of_key_limits(store: JobStore) -> None:
    def drop(connection: sa.Connection) -> None:
        connection.execute(sa.text("ALTER TABLE jobs DROP COLUMN key_limits"))
        connection.execute(sa.text("UPDATE schema_version SET version = 3"))

    await submit(store, "a", owner="alice")
    await store._database.run(drop, writes=True)
    await migrate(store._database)

    await submit(store, "b", owner="alice", key_limits='{"jobs":1}')
    assert [claim.key_limits for claim in await store.claim(W, 2)] == [None, '{"jobs":1}']
    assert (await found(store, "b")).key_limits == '{"jobs":1}'


async def test_migration_adds_the_index_of_a_conversations_responses(store: JobStore) -> None:
    def indexes(connection: sa.Connection) -> set[str | None]:
        return {index["name"] for index in sa.inspect(connection).get_indexes("responses")}

    def drop(connection: sa.Connection) -> None:
        connection.execute(sa.text("DROP INDEX responses_conversations"))
        connection.execute(sa.text("UPDATE schema_version SET version = 9"))

    await store._database.run(drop, writes=True)
    assert "responses_conversations" not in await store._database.run(indexes, writes=False)
    await migrate(store._database)

    assert "responses_conversations" in await store._database.run(indexes, writes=False)
