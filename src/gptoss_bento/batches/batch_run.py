"""One run of one batch: its input is checked, its lines are answered, its files are ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import Any, TypeVar

from gptoss_bento.background.store_retries import until_available
from gptoss_bento.batches.lines import Line, LineError, parsed, raw_lines
from gptoss_bento.batches.output import CANCELLED, ERROR, EXPIRED, BatchOutput
from gptoss_bento.batches.slots import Slot, Slots
from gptoss_bento.batches.stored_files import StoredFiles, new_file_id
from gptoss_bento.batches.validation import checked_input
from gptoss_bento.concurrency import first_of, to_its_end
from gptoss_bento.http.errors import INTERNAL_ERROR, HttpRefusalError
from gptoss_bento.state.batch import BatchClaim, BatchEnd, BatchStatus, OutputFile, StoredBatch
from gptoss_bento.state.batch_store import BatchStore
from gptoss_bento.state.clock import Clock
from gptoss_bento.strict_json import dumps

_MOST_INTERRUPTIONS = 20
"""A line that ends the engine would end it again at each start, until the window is over."""

_Result = TypeVar("_Result")

logger = logging.getLogger(__name__)

_REPORT_INTERVAL_S = 1.0  # between two writes of the counts

Answer = Callable[[StoredBatch, Line, Slot], Awaitable[dict[str, Any]]]
"""Answers a line: `LineCalls.answer`."""


class InterruptedTooOftenError(Exception):
    """The service ended so often while it ran this batch that the batch may be the cause."""

    def __init__(self) -> None:
        super().__init__(
            f"The server ended {_MOST_INTERRUPTIONS} times while it ran this batch, which may be the cause."
        )


class Stop(Enum):
    """Why a run ends before its last line."""

    CANCELLED = auto()
    EXPIRED = auto()
    LOST = auto()  # another worker runs the batch
    SHUTDOWN = auto()


_UNRUN = {
    Stop.CANCELLED: (BatchStatus.CANCELLED, CANCELLED, "The batch was cancelled before this request was run."),
    Stop.EXPIRED: (BatchStatus.EXPIRED, EXPIRED, "The batch's completion window was over before this request was run."),
}


@dataclass(frozen=True)
class RunParts:
    """What all runs of a worker share.

    Attributes:
        most_lines: of the batch's key at the same time; None: as many as there are slots.
        longest: bytes of a line.
        clock: milliseconds since 1970.
    """

    store: BatchStore
    files: StoredFiles
    slots: Slots
    answer: Answer
    most_lines: Callable[[StoredBatch], int | None]
    longest: int
    clock: Clock


class BatchRun:
    """One run.

    Args:
        batch: as it was claimed.
        parts: of the worker.
    """

    def __init__(self, batch: StoredBatch, parts: RunParts) -> None:
        self.owner = batch.owner
        self.claim = self._claim = BatchClaim(batch.id, batch.attempt)
        self._batch = batch
        self._parts = parts
        self._output = BatchOutput(parts.files.folder, self._claim)
        self._is_open = False
        self._has_started = batch.in_progress_at is not None
        self._reported = (batch.completed, batch.failed)
        self._reason: Stop | None = None
        self._waits = False  # the disk has failed it
        self._work: asyncio.Task[BatchEnd | None] | None = None

    def stop(self, reason: Stop) -> None:
        """Ends the run: lines that are being answered are aborted. The first reason counts."""
        if self._reason is None:
            self._reason = reason
            if self._work:
                self._work.cancel()  # once: a second time would interrupt how the first one ends

    async def run(self) -> bool:
        """Runs the batch to its end, or until it is stopped. Returns False if it is to be tried again later."""
        try:
            return await self._run_to_its_end()
        finally:
            self._output.release()

    async def _run_to_its_end(self) -> bool:
        self._work = work = asyncio.create_task(self._run())
        watching = asyncio.create_task(self._watch())
        try:
            await asyncio.wait((work,))
        finally:
            watching.cancel()
            work.cancel()
            await asyncio.wait((work, watching))
        end = await self._end_of(work)
        if end is not None:
            await _stored(partial(self._parts.store.finish, self._claim, end))
        elif self._reason is not Stop.LOST and not self._waits:
            await _stored(partial(self._parts.store.give_back, self._claim))
        return not self._waits

    async def _run(self) -> BatchEnd | None:
        if self._batch.status is BatchStatus.CANCELLING:
            self._reason = Stop.CANCELLED
        else:
            await self._check()  # an input that cannot be read would end the run before the watch looks
        if self._batch.interruptions > _MOST_INTERRUPTIONS:
            raise InterruptedTooOftenError
        if self._reason is None and self._batch.status is BatchStatus.VALIDATING and (end := await self._validated()):
            return end
        if self._reason is None:
            await self._open()
            await self._run_lines()
            await _stored(partial(self._parts.store.finalize, self._claim))
        return None

    async def _validated(self) -> BatchEnd | None:
        """Checks the input. Returns the end of the batch if it is wrong."""
        found = await checked_input(await self._input(), self._batch.endpoint)
        if found.errors:
            return BatchEnd(BatchStatus.FAILED, errors=_errors([error.as_object() for error in found.errors]))
        if not await _stored(partial(self._parts.store.start, self._claim, found.total, found.model)):
            await self._check()
            return None
        self._has_started = True
        return None

    async def _input(self) -> AsyncGenerator[tuple[int, bytes]]:
        """The lines of the input."""
        file = await _stored(partial(self._parts.files.store.input_of, self._batch.input_file_id))
        if file is None:
            raise LineError("input_file_missing", "The input file is not there any more.", 1)
        return raw_lines(self._parts.files.content(file), self._parts.longest)

    async def _lines(self) -> AsyncGenerator[Line]:
        """Those without an answer."""
        async with aclosing(await self._input()) as raw_input:
            async for number, raw in raw_input:
                line = parsed(number, raw, self._batch.endpoint)
                if line and line.custom_id not in self._output.done:
                    yield line

    async def _open(self) -> None:
        if not self._is_open:
            await self._output.open()
            self._is_open = True

    async def _run_lines(self) -> None:
        own = asyncio.Semaphore(self._parts.slots.count)  # also of lines that wait without a slot
        async with asyncio.TaskGroup() as group, aclosing(self._lines()) as lines:
            async for line in lines:
                await own.acquire()
                slot = await self._parts.slots.take(self.owner, self._parts.most_lines(self._batch))
                task = group.create_task(self._run_line(line, slot))
                task.add_done_callback(partial(_left, slot, own))  # also of one that never started

    async def _run_line(self, line: Line, slot: Slot) -> None:
        try:
            response = await self._parts.answer(self._batch, line, slot)
        except Exception:
            logger.exception("batch %s, line %d", self._batch.id, line.number)
            await self._output.fail(line.custom_id, "server_error", INTERNAL_ERROR)
        else:
            await self._output.answer(line.custom_id, response)

    # the watch

    async def _watch(self) -> None:
        """Writes the counts, and notices a cancellation, the end of the window and the loss of the batch."""
        while True:
            await asyncio.sleep(_REPORT_INTERVAL_S)
            counts = (self._output.completed, self._output.failed)
            if self._is_open and counts != self._reported:
                await _stored(partial(self._parts.store.report, self._claim, *counts))
                self._reported = counts
            await self._check()

    async def _check(self) -> None:
        status = await _stored(partial(self._parts.store.status, self._claim))
        if status is None:
            self.stop(Stop.LOST)
        elif status is BatchStatus.CANCELLING:
            self.stop(Stop.CANCELLED)
        elif self._parts.clock() >= self._batch.expires_at * 1000:
            self.stop(Stop.EXPIRED)

    # the end

    async def _end_of(self, work: asyncio.Task[BatchEnd | None]) -> BatchEnd | None:
        """How the batch ends; None: another run goes on with it."""
        error = None if work.cancelled() else work.exception()
        error = first_of(error) if error else None
        if isinstance(error, OSError):
            logger.error("batch %s waits: %s", self._batch.id, error)
            self._waits = self._reason is None
            self._reason = self._reason or Stop.SHUTDOWN
        elif error:
            return await self._failed(error)
        elif not work.cancelled() and (end := work.result()):
            return end
        if self._reason in (Stop.LOST, Stop.SHUTDOWN):
            await self._closed()
            return None
        if self._reason is None:
            return await self._ended(BatchStatus.COMPLETED)
        status, code, message = _UNRUN[self._reason]
        await self._fail_rest(code, message)
        return await self._ended(status)

    async def _failed(self, error: BaseException) -> BatchEnd:
        logger.error("batch %s failed", self._batch.id, exc_info=error)
        is_known = isinstance(error, HttpRefusalError | LineError | InterruptedTooOftenError)
        message = str(error) if is_known else INTERNAL_ERROR
        if self._has_started:
            await self._open()  # what is there of earlier runs is kept
        found = {"code": "server_error", "line": None, "message": message, "param": None}
        return await self._ended(BatchStatus.FAILED, _errors([found]))

    async def _fail_rest(self, code: str, message: str) -> None:
        """Writes an error for each line that was not run; a batch that was never started has no files."""
        if not self._has_started:
            return
        await self._open()
        with suppress(LineError, HttpRefusalError, OSError):  # without the input there is nothing more to say
            async for line in self._lines():
                await self._output.fail(line.custom_id, code, message)

    async def _ended(self, status: BatchStatus, errors: str | None = None) -> BatchEnd:
        files = await self._closed()
        output = self._output
        usage = dumps(output.usage.as_object()) if output.completed else None
        return BatchEnd(status, output.completed, output.failed, errors, usage, files)

    async def _closed(self) -> list[OutputFile]:
        if not self._is_open:
            return []
        kept = await self._output.close()
        return [
            OutputFile(new_file_id(), f"{self._batch.id}_{kind}.jsonl", size, name, kind == ERROR)
            for kind, (name, size) in kept.items()
        ]


async def _stored(operation: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
    """Does something in the database, and does it whole: a stopped run ends after it, or once it is not available."""
    return await until_available(lambda: to_its_end(operation()))


def _left(slot: Slot, own: asyncio.Semaphore, _: asyncio.Task[None]) -> None:
    slot.release()
    own.release()


def _errors(found: list[dict[str, Any]]) -> str:
    return dumps({"object": "list", "data": found})
