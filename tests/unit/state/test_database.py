"""Databases that are busy, full, unreachable or not supported."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing, nullcontext
from pathlib import Path

import pytest
import sqlalchemy as sa

from gptoss_bento.bench.servers import free_port
from gptoss_bento.errors import ConfigurationError
from gptoss_bento.state.database import StoreUnavailableError, _enter_wal_mode
from gptoss_bento.state.store import open_store
from tests.stores import Clock
from tests.unit.state.stored import submit


async def test_sqlite_waits_for_other_processes(tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / "jobs.sqlite3"
    async with open_store(None, file, clock) as one, open_store(None, file, clock) as other:
        await asyncio.gather(
            *(submit(store, f"{name}{i}") for i in range(20) for name, store in [("a", one), ("b", other)])
        )
        assert (await one.counts()).in_queue == 40


def test_sqlite_tries_again_to_switch_a_file_that_another_process_uses(tmp_path: Path) -> None:
    """SQLite refuses one of two processes that switch the journal of a new file concurrently, and does not wait."""
    file = tmp_path / "jobs.sqlite3"
    with closing(sqlite3.connect(file)) as other, closing(sqlite3.connect(file, timeout=0)) as own:
        other.execute("CREATE TABLE a (x)")
        other.execute("BEGIN IMMEDIATE")
        refusals: list[str] = []

        def execute(statement: str) -> None:
            try:
                own.execute(statement)
            except sqlite3.OperationalError as error:
                refusals.append(str(error))
                other.commit()
                raise

        _enter_wal_mode(execute)

        assert refusals == ["database is locked"]
        assert own.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize(("code", "tries"), [(sqlite3.SQLITE_BUSY_RECOVERY, 2), (sqlite3.SQLITE_IOERR, 1)])
def test_sqlite_switches_again_for_each_kind_of_busy_and_for_nothing_else(code: int, tries: int) -> None:
    error = sqlite3.OperationalError("refused")
    error.sqlite_errorcode = code
    seen: list[str] = []

    def execute(statement: str) -> None:
        seen.append(statement)
        if len(seen) == 1:
            raise error

    with nullcontext() if tries == 2 else pytest.raises(sqlite3.OperationalError):
        _enter_wal_mode(execute)
    assert len(seen) == tries


async def test_disk_full_is_a_clear_error_that_passes(tmp_path: Path, clock: Clock) -> None:
    async with open_store(None, tmp_path / "jobs.sqlite3", clock) as store:
        await submit(store, "a")
        engine = store._database.engine  # type: ignore[attr-defined]
        with engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        sa.event.listen(engine, "checkout", lambda c, *_: _limit_pages(c, pages))
        with pytest.raises(StoreUnavailableError, match="full"):
            await submit(store, "b", input="x" * 100_000)
        sa.event.listen(engine, "checkout", lambda c, *_: _limit_pages(c, 10**6))
        await submit(store, "b", input="x" * 100_000)
        assert await store.get("a")


def _limit_pages(connection: sqlite3.Connection, pages: int) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA max_page_count = {pages}")
    cursor.close()


async def test_unreachable_database_is_a_clear_error() -> None:
    url = f"postgresql+asyncpg://me:secret@127.0.0.1:{free_port()}/x"
    with pytest.raises(StoreUnavailableError) as caught:
        async with open_store(url, Path("unused")):
            pass
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["not a url secret", "mysql://me:secret@host/db", "postgresql+psycopg2://secret@h/db"])
async def test_wrong_url_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ConfigurationError, match="JOB_STORE_URL") as caught:
        async with open_store(url, Path("unused")):
            pass
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", [None, "jobs.sqlite3"])
async def test_file_that_may_not_be_written_is_named(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    (tmp_path / "jobs.sqlite3").touch()
    refused = tmp_path / name if name else tmp_path
    monkeypatch.setattr(os, "access", lambda path, _: path != refused)

    with pytest.raises(PermissionError) as caught:
        async with open_store(f"sqlite:///{tmp_path}/jobs.sqlite3", Path("unused"), clock):
            pass

    assert caught.value.filename == str(refused)
