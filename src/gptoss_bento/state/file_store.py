"""The store of files: what /v1/files knows of each; its content is in a folder.

Content is never without a row: the row is there before the first byte, and goes after the content. So a process that
is killed leaves nothing that no process cleans up. Each owner finds its own files alone. Times are milliseconds since
1970.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import sqlalchemy as sa

from gptoss_bento.state.batch import UNFINISHED
from gptoss_bento.state.clock import Clock
from gptoss_bento.state.database import Database
from gptoss_bento.state.file import FileLimits, FilePage, FileState, NewFile, StoredFile
from gptoss_bento.state.owner_lock import lock_of, take_lock
from gptoss_bento.state.schema import BATCHES, FILES, WORKERS
from gptoss_bento.state.statements import storable
from gptoss_bento.state.transactions import Store, reads, writes

_REMOVED_PER_ROUND = 100
_OWNER_LOCK = lock_of("files")


class FilesFullError(Exception):
    """The owner has as many files, or as many bytes, as allowed. The text is for the client."""


class UnknownFileError(Exception):
    """The owner has no such file. That another owner has it makes no difference."""


class FileStore(Store):
    """The files of one database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        super().__init__(database)
        self._now = clock

    # receiving

    @writes
    def begin(self, connection: sa.Connection, new: NewFile, worker_id: str, limits: FileLimits) -> None:
        """Records that this worker receives a file. Until it is complete it counts as the bytes of `new`.

        Raises:
            FilesFullError: the owner can have no further one.
        """
        take_lock(connection, _OWNER_LOCK, new.owner)
        count, size = _owned(connection, new.owner, self._now())
        if count >= limits.count:
            raise FilesFullError(f"This key has {limits.count} files, as many as it may have (FILES_MAX).")
        _check_bytes(size + new.bytes, limits)
        add_file(connection, new, self._now(), FileState.UPLOADING, worker_id)

    @writes
    def complete(self, connection: sa.Connection, new: NewFile, worker_id: str, limits: FileLimits) -> StoredFile:
        """From now on the file is found.

        Raises:
            FilesFullError: the owner has no room for so many bytes; nothing is changed.
            UnknownFileError: this worker does not receive the file any more: it counted as dead.
        """
        take_lock(connection, _OWNER_LOCK, new.owner)
        _, size = _owned(connection, new.owner, self._now(), besides=new.id)
        _check_bytes(size + new.bytes, limits)
        received = (FILES.c.id == new.id) & (FILES.c.worker_id == worker_id)
        values = _values(new, self._now()) | {"state": FileState.COMPLETE.value, "worker_id": None}
        if not connection.execute(FILES.update().where(received).values(values)).rowcount:
            raise UnknownFileError
        return find_file(connection, new.owner, new.id, self._now())

    # reading

    @reads
    def get(self, connection: sa.Connection, owner: str, file_id: str) -> StoredFile:
        """A file.

        Raises:
            UnknownFileError: the owner has none of this id.
        """
        return find_file(connection, owner, file_id, self._now())

    @reads
    def input_of(self, connection: sa.Connection, file_id: str) -> StoredFile | None:
        """The input of a batch, also if it was deleted meanwhile."""
        row = connection.execute(sa.select(FILES).where(FILES.c.id == file_id)).one_or_none()
        return _file(row) if row else None

    @reads
    def page(
        self,
        connection: sa.Connection,
        owner: str,
        *,
        order: Literal["asc", "desc"],
        limit: int,
        after: str | None = None,
        purpose: str | None = None,
    ) -> FilePage:
        """Some files, by the order in which they were made.

        Args:
            owner: of them.
            order: `asc`: the oldest first.
            limit: how many at most.
            after: the id of the file before the first.
            purpose: of them; None: any.

        Raises:
            UnknownFileError: the owner has no file `after`.
        """
        found = _visible(owner, self._now())
        if purpose is not None:
            found &= FILES.c.purpose == storable(purpose)
        if after is not None:
            start = _seq(connection, owner, after, self._now())
            found &= FILES.c.seq > start if order == "asc" else FILES.c.seq < start
        sorting = FILES.c.seq if order == "asc" else FILES.c.seq.desc()
        rows = connection.execute(sa.select(FILES).where(found).order_by(sorting).limit(limit + 1)).all()
        return FilePage(tuple(map(_file, rows[:limit])), len(rows) > limit)

    # deleting

    @writes
    def delete(self, connection: sa.Connection, owner: str, file_id: str) -> None:
        """The file is not found from now on; `gone` has it once nothing uses its content.

        Raises:
            UnknownFileError: the owner has none of this id.
        """
        found = _visible(owner, self._now()) & (FILES.c.id == storable(file_id))
        if not connection.execute(FILES.update().where(found).values(state=FileState.DELETED.value)).rowcount:
            raise UnknownFileError

    @reads
    def gone(self, connection: sa.Connection, after: str = "") -> list[StoredFile]:
        """Some files that are not found any more: deleted, expired, or left incomplete by a worker that has ended.

        The input of a batch that has not ended is none of them.

        Args:
            after: the id of the file before the first, by the order of ids.
        """
        alive = sa.select(WORKERS.c.worker_id)
        is_lost = (FILES.c.state == FileState.UPLOADING) & FILES.c.worker_id.not_in(alive)
        has_expired = (FILES.c.state == FileState.COMPLETE) & (FILES.c.expires_at <= self._now())
        gone = (is_lost | has_expired | (FILES.c.state == FileState.DELETED)) & ~_is_in_use()
        query = sa.select(FILES).where(gone & (FILES.c.id > after)).order_by(FILES.c.id).limit(_REMOVED_PER_ROUND)
        return list(map(_file, connection.execute(query)))

    @writes
    def forget(self, connection: sa.Connection, file_ids: Sequence[str]) -> None:
        """The content of these files has been removed."""
        connection.execute(FILES.delete().where(FILES.c.id.in_(file_ids)))


def add_file(
    connection: sa.Connection,
    new: NewFile,
    now: int,
    state: FileState = FileState.COMPLETE,
    worker_id: str | None = None,
) -> None:
    """Adds a row, within a transaction of another store too."""
    owned = {"owner": new.owner, "id": new.id, "state": state.value, "worker_id": worker_id}
    connection.execute(FILES.insert().values(owned | _values(new, now)))


def _values(new: NewFile, now: int) -> dict[str, Any]:
    return {
        "purpose": new.purpose,
        "filename": storable(new.filename),
        "bytes": new.bytes,
        "stored_as": new.stored_as,
        "created_at": now,
        "expires_at": now + new.ttl_ms,
    }


def _is_in_use() -> sa.ColumnElement[bool]:
    """The inputs of batches that have not ended: their content stays, whatever their state."""
    unfinished = BATCHES.c.status.in_(sorted(status.value for status in UNFINISHED))
    return sa.exists().where(BATCHES.c.input_file_id == FILES.c.id, unfinished)


def _owned(connection: sa.Connection, owner: str, now: int, besides: str = "") -> tuple[int, int]:
    """The number of an owner's files but one, and their bytes; those that arrive or that a batch reads count too."""
    is_kept = (FILES.c.state != FileState.DELETED) & (FILES.c.expires_at > now)
    counted = (FILES.c.owner == owner) & (FILES.c.id != besides) & (is_kept | _is_in_use())
    size = sa.func.coalesce(sa.func.sum(FILES.c.bytes), 0)
    count, total = connection.execute(sa.select(sa.func.count(), size).where(counted)).one()
    return int(count), int(total)


def _check_bytes(size: int, limits: FileLimits) -> None:
    if size > limits.bytes:
        raise FilesFullError(
            f"The files of this key may have {limits.bytes} bytes together (FILES_KEY_MAX_BYTES). Delete some first."
        )


def _visible(owner: str, now: int) -> sa.ColumnElement[bool]:
    return (FILES.c.owner == owner) & (FILES.c.state == FileState.COMPLETE) & (FILES.c.expires_at > now)


def find_file(connection: sa.Connection, owner: str, file_id: str, now: int) -> StoredFile:
    """A file, within a transaction of another store too.

    Raises:
        UnknownFileError: the owner has none of this id.
    """
    found = _visible(owner, now) & (FILES.c.id == storable(file_id))
    row = connection.execute(sa.select(FILES).where(found)).one_or_none()
    if row is None:
        raise UnknownFileError
    return _file(row)


def _seq(connection: sa.Connection, owner: str, file_id: str, now: int) -> int:
    found = _visible(owner, now) & (FILES.c.id == storable(file_id))
    seq = connection.execute(sa.select(FILES.c.seq).where(found)).scalar()
    if seq is None:
        raise UnknownFileError
    return int(seq)


def _file(row: Any) -> StoredFile:
    return StoredFile(row.id, row.purpose, row.filename, row.bytes, row.stored_as, row.created_at, row.expires_at)
