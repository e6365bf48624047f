"""What a batch writes: a file of answers and a file of errors, appended to as lines end.

Each attempt has files of its own, so a worker that has lost its batch cannot write into those of the next one. A new
attempt copies the whole lines of the attempt before; what is in them is not run again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, BinaryIO

from gptoss_bento.batches.line_ids import LineIds
from gptoss_bento.batches.lines import raw_lines
from gptoss_bento.batches.usage import UsageSum
from gptoss_bento.state.batch import BatchClaim
from gptoss_bento.strict_json import dumps, loads_stored

logger = logging.getLogger(__name__)

OUTPUT, ERROR = "output", "error"
EXPIRED, CANCELLED = "batch_expired", "batch_cancelled"
"""The codes of lines that were not run."""

_RETRY_S = 1.0
_NO_LIMIT = 2**63


class BatchOutput:
    """The files of one attempt. Make it with `opened`.

    Attributes:
        done: the lines that have an answer or an error.
        completed: how many of them have an answer.
        failed: how many were run and have an error.
    """

    def __init__(self, folder: Path, claim: BatchClaim) -> None:
        self._folder = folder
        self._claim = claim
        self._appending = {kind: Appending(self._path(kind)) for kind in (OUTPUT, ERROR)}
        self.done = LineIds()
        self.completed = self.failed = 0
        self.usage = UsageSum()

    def _path(self, kind: str) -> Path:
        return self._folder / f"{self._claim.id}.{self._claim.attempt}.{kind}"

    async def open(self) -> None:
        """Takes over what earlier attempts have written, and removes their files."""
        for kind in (OUTPUT, ERROR):
            earlier = await asyncio.to_thread(self._latest_earlier, kind)  # the folder may have many files
            if earlier is not None:
                await self._take_over(earlier, kind)
            self._appending[kind].open()
        await asyncio.to_thread(self._remove_earlier)

    def _latest_earlier(self, kind: str) -> Path | None:
        found = filter(self._is_earlier, self._folder.glob(f"{self._claim.id}.*.{kind}"))
        return max(found, key=_attempt_of, default=None)

    def _is_earlier(self, path: Path) -> bool:
        return _attempt_of(path) < self._claim.attempt

    async def _take_over(self, earlier: Path, kind: str) -> None:
        """Copies whole lines alone: the process may have been killed within the last one."""
        unfinished = self._path(f"{kind}.copying")
        with unfinished.open("wb") as copy:
            async with aclosing(raw_lines(earlier, _NO_LIMIT)) as lines:
                await self._copy(lines, kind, copy)
        await asyncio.to_thread(unfinished.replace, self._path(kind))

    async def _copy(self, lines: AsyncGenerator[tuple[int, bytes]], kind: str, copy: BinaryIO) -> None:
        async for _, line in lines:
            if not (line.endswith(b"\n") and self._counts(line, kind)):
                return
            copy.write(line)

    def _counts(self, line: bytes, kind: str) -> bool:
        """Counts a line that was written before. Returns False if it is none: a power cut has spoiled it."""
        try:
            record = loads_stored(line.decode())
            self._count(record, kind)
        except (ValueError, KeyError, TypeError):
            logger.warning("batch %s: a line of its %s file cannot be read and is run again", self._claim.id, kind)
            return False
        return True

    def _count(self, record: Mapping[str, Any], kind: str) -> None:
        if not self.done.add(record["custom_id"]):
            return
        if kind == OUTPUT:
            self.completed += 1
            self.usage.add(record["response"]["body"])
        elif (record["error"] or {}).get("code") not in (EXPIRED, CANCELLED):
            self.failed += 1

    def _remove_earlier(self) -> None:
        for path in self._folder.glob(f"{self._claim.id}.*"):
            if self._is_earlier(path):
                path.unlink(missing_ok=True)

    async def answer(self, custom_id: str, response: Mapping[str, Any]) -> None:
        """Writes a line's answer: the status, and the body as JSON. Returns when it is written."""
        kind = OUTPUT if response["status_code"] < 400 else ERROR
        await self._write(kind, record(custom_id, response=response))

    async def fail(self, custom_id: str, code: str, message: str) -> None:
        """Writes that a line has no answer, and why."""
        await self._write(ERROR, record(custom_id, error={"code": code, "message": message}))

    async def _write(self, kind: str, made: Mapping[str, Any]) -> None:
        text = f"{dumps(made)}\n".encode()
        self._count(made, kind)  # first: it will be written, even if this task is cancelled
        await self._appending[kind].append(text)

    def release(self) -> None:
        """Closes what `close` has not."""
        for each in self._appending.values():
            each.release()

    async def close(self) -> dict[str, tuple[str, int]]:
        """Ends the files. Returns the names and sizes of those that have a line; the others are removed."""
        for each in self._appending.values():
            await each.close()
        return {kind: (each.path.name, each.size) for kind, each in self._appending.items() if each.size}


def record(
    custom_id: str, response: Mapping[str, Any] | None = None, error: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A line of an output or error file as OpenAI writes it."""
    made = {"id": f"batch_req_{uuid.uuid4().hex[:24]}", "custom_id": custom_id}
    return {**made, "response": response, "error": error}


def _attempt_of(path: Path) -> int:
    return int(path.name.split(".")[1])


class Appending:
    """A file that is appended to. What was given to `append` is written also if its caller is cancelled meanwhile."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._file: BinaryIO | None = None
        self._is_over = False
        self._pending: list[bytes] = []
        self._turn = asyncio.Lock()

    def open(self) -> None:
        """Opens it at its end; again if it was replaced."""
        self._close_file()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab")
        self.size = self._file.tell()

    async def append(self, data: bytes) -> None:
        """Returns when it is written; a disk without room is waited for."""
        self._pending.append(data)
        await asyncio.shield(self._flush())

    async def _flush(self) -> None:
        async with self._turn:
            data = b"".join(self._pending)
            self._pending.clear()
            while data and not self._is_over and not await self._is_written(data):  # noqa: ASYNC110  # another program makes room
                await asyncio.sleep(_RETRY_S)
            if self._is_over:
                self._close_file()

    async def _is_written(self, data: bytes) -> bool:
        try:
            await asyncio.to_thread(self._write, data)
        except OSError as error:
            logger.warning("%s cannot be written: %s. Trying again.", self.path.name, error)
            return False
        return True

    def _write(self, data: bytes) -> None:
        """All of it, or none: what a failed write has left is truncated."""
        assert self._file is not None  # noqa: S101
        descriptor = self._file.fileno()
        os.ftruncate(descriptor, self.size)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        self.size += len(data)

    async def close(self) -> None:
        """Writes what is left, and removes an empty file."""
        await self._flush()
        await asyncio.to_thread(self._sync)
        self.release()
        if not self.size:
            self.path.unlink(missing_ok=True)

    def _sync(self) -> None:
        if self._file:
            os.fsync(self._file.fileno())

    def release(self) -> None:
        """Closes it as it is, after a write that is under way: its descriptor may be another file's soon."""
        self._is_over = True
        if not self._turn.locked():
            self._close_file()

    def _close_file(self) -> None:
        if self._file:
            self._file.close()
            self._file = None
