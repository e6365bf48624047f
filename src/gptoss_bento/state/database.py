"""Where transactions run: SQLite in a file, or PostgreSQL where several replicas share a database."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from gptoss_bento.errors import ConfigurationError

_Result = TypeVar("_Result")

_READERS = 4

_BUSY_TIMEOUT_S = 10
_BUSY_RETRY_S = 0.01
_PRIMARY_CODE = 0xFF  # of SQLite's error codes; the rest says which kind of busy
_CONNECT_TIMEOUT_S = 5
_STATEMENT_TIMEOUT_S = 30


class StoreUnavailableError(Exception):
    """The store cannot be used now: the disk is full or the database does not answer. Trying again may help."""


class Database(Protocol):
    """Where transactions run."""

    async def run(self, work: Callable[[sa.Connection], _Result], *, writes: bool) -> _Result:
        """Runs `work` as one transaction."""
        ...

    async def close(self) -> None: ...


class Sqlite:
    """SQLite in separate threads, a whole transaction at a time.

    With an asynchronous driver every statement would change threads several times: a job took 16 ms instead of 6
    (measured). SQLite has one writer, so one thread writes; its queue is faster and fairer than waiting for locks.
    """

    def __init__(self, url: sa.URL) -> None:
        if url.database:
            _check_writable(Path(url.database))
        self.engine = sa.create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_S}, pool_size=_READERS + 1)
        sa.event.listen(self.engine, "connect", _prepare_sqlite)
        sa.event.listen(self.engine, "begin", _begin_sqlite)
        self._writer = ThreadPoolExecutor(1, "job-store-writer")
        self._readers = ThreadPoolExecutor(_READERS, "job-store-reader")

    async def run(self, work: Callable[[sa.Connection], _Result], *, writes: bool) -> _Result:
        def transaction() -> _Result:
            with self.engine.connect().execution_options(gptoss_writes=writes) as connection, connection.begin():
                return work(connection)

        with _translated():
            executor = self._writer if writes else self._readers
            return await asyncio.get_running_loop().run_in_executor(executor, transaction)

    async def close(self) -> None:
        for executor in (self._writer, self._readers):
            await asyncio.to_thread(executor.shutdown)
        self.engine.dispose()


def _check_writable(file: Path) -> None:
    """Makes the file's folder. SQLite itself says "unable to open database file", and neither which one nor why.

    Raises:
        PermissionError: this user may not write the folder or the file; it names the path.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    for path in (file.parent, file):
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


class Postgresql:
    """PostgreSQL through asyncpg."""

    def __init__(self, url: sa.URL) -> None:
        times = {"timeout": _CONNECT_TIMEOUT_S, "command_timeout": _STATEMENT_TIMEOUT_S}
        self.engine = create_async_engine(url, connect_args=times, pool_size=10, max_overflow=10, pool_pre_ping=True)

    async def run(self, work: Callable[[sa.Connection], _Result], *, writes: bool) -> _Result:  # noqa: ARG002
        with _translated():
            async with self.engine.begin() as connection:
                return await connection.run_sync(work)

    async def close(self) -> None:
        await self.engine.dispose()


def connect(url: str | None, file: Path) -> Database:
    """The database of a URL or, without one, SQLite in a file. Nothing is sent to it yet.

    Raises:
        ConfigurationError: the URL is none, or of another database.
    """
    checked = _checked_url(url) if url else sa.URL.create("sqlite", database=str(file))
    return Sqlite(checked) if checked.get_backend_name() == "sqlite" else Postgresql(checked)


_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}


def _checked_url(text: str) -> sa.URL:
    """The URL with its driver. It is not shown in errors: it may hold a password."""
    try:
        url = sa.make_url(text)
    except sa.exc.ArgumentError:
        raise ConfigurationError(
            "JOB_STORE_URL is not a URL such as postgresql+asyncpg://user@host/database."
        ) from None
    driver = _DRIVERS.get(url.drivername, url.drivername)
    if driver not in _DRIVERS.values():
        known = ", ".join(sorted(set(_DRIVERS.values())))
        raise ConfigurationError(f"JOB_STORE_URL must begin with one of {known}, got {url.drivername}.")
    return url.set(drivername=driver)


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # the driver would begin transactions late, and read-only
    cursor = connection.cursor()
    _enter_wal_mode(cursor.execute)
    # Safe when the process is killed; only a power cut may lose the last moment.
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA journal_size_limit = 67108864")
    cursor.close()


def _enter_wal_mode(execute: Callable[[str], Any]) -> None:
    """Switches the journal, and tries again while another process does the same.

    Where two connections switch a new file concurrently, SQLite refuses one of them without waiting: each would wait
    for the other. Six processes that opened 300 new files together met it 21 times.
    """
    deadline = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & _PRIMARY_CODE == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(_BUSY_RETRY_S)
        else:
            return


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("gptoss_writes")
    # A transaction that first reads and then writes could meet another writer, and would have to start again.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


class _translated:  # noqa: N801  # reads as a statement: `with _translated():`
    """Turns an error of the database or its driver into StoreUnavailableError, unless our statement caused it."""

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        ours = (sa.exc.IntegrityError, sa.exc.ProgrammingError, sa.exc.DataError)
        theirs = (sa.exc.DBAPIError, sa.exc.TimeoutError, OSError, TimeoutError)
        if isinstance(error, theirs) and not isinstance(error, ours):
            cause = getattr(error, "orig", None) or error
            first_line = (str(cause).strip() or type(cause).__name__).splitlines()[0]
            raise StoreUnavailableError(f"The job store cannot be used now: {first_line}") from error
