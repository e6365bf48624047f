"""Writes the output of one run of a job to the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gptoss_bento.background.store_retries import until_available
from gptoss_bento.state.job import Claim, Job, Status
from gptoss_bento.state.store import JobStore


class LostError(Exception):
    """The job was cancelled or taken over by another worker: nothing more is written."""


class ItemWriter:
    """Writes items as they arrive; those that arrive during a write are written together in the next."""

    def __init__(self, store: JobStore, claim: Claim, written: Callable[[], None]) -> None:
        self._store = store
        self._claim = claim
        self._written = written
        self._waiting: list[str] = []
        self._first = 0  # the position of the first that waits
        self._writing: asyncio.Task[None] | None = None
        self._lost = False

    def add(self, item: str, *, last: bool) -> None:
        """Takes an item without waiting for its write; the last ones are written together with the job's end.

        Raises:
            LostError: the claim has been lost.
        """
        if self._lost:
            raise LostError
        self._waiting.append(item)
        if not last and (self._writing is None or self._writing.done()):
            self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        while self._waiting and not self._lost:
            first, items = self._first, self._waiting
            self._first, self._waiting = first + len(items), []
            self._lost = not await until_available(lambda: self._store.append(self._claim, first, items))  # noqa: B023
            self._written()

    async def end(
        self, status: Status, error: str | None = None, *, refused: bool = False
    ) -> tuple[Job, list[str]] | None:
        """Writes the end of the job together with the items that wait. Returns the job if these are all its items."""
        if self._writing:
            await self._writing
        if self._lost:
            return None
        first, items = self._first, self._waiting
        job = await until_available(
            lambda: self._store.finish(self._claim, status, first, items, error, refused=refused)
        )
        return (job, items) if job and not first else None

    async def settle(self) -> None:
        """Waits for a write in progress, and drops the items that were to follow."""
        self._waiting = []
        if self._writing:
            await self._writing
