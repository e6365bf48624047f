"""Stores to test on, SQLite and PostgreSQL, and a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from gptoss_bento.state.store import JobStore, open_store
from tests.postgres import binaries, postgres_server


@dataclass
class Clock:
    """A time that stops unless the test moves it; milliseconds since 1970."""

    now: int = 1_000_000_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server of the session."""
    with postgres_server(tmp_path_factory.mktemp("postgres"), binaries()) as server:
        yield server.url


@pytest.fixture(params=["sqlite", "postgresql"])
async def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of an empty store, of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'jobs.sqlite3'}"
        return
    url: str = request.getfixturevalue("postgres_url")
    yield url
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    await connection.close()


@pytest.fixture
async def store(store_url: str, clock: Clock) -> AsyncIterator[JobStore]:
    async with open_store(store_url, Path("unused"), clock) as opened:
        yield opened
