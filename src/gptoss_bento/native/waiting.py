"""Waiting for something to happen to a job: at once where it happens in this process, soon where in another."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager


class Changes:
    """Who waits for which job."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._known: Mapping[str, object] = {}

    @contextmanager
    def of(self, job_id: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever the job changes."""
        event = asyncio.Event()
        self._waiting[job_id].add(event)
        try:
            yield event
        finally:
            self._waiting[job_id].discard(event)
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    def notify(self, job_ids: Iterable[str]) -> None:
        """Something happened to these jobs."""
        for job_id in job_ids:
            for event in self._waiting.get(job_id, ()):
                event.set()

    @property
    def watched(self) -> list[str]:
        """The jobs somebody waits for."""
        return list(self._waiting)

    def compare(self, progress: Mapping[str, object]) -> None:
        """Notifies of the jobs whose progress differs from the last that was seen here, or is seen first."""
        self.notify(job_id for job_id, now in progress.items() if self._known.get(job_id) != now)
        self._known = progress
