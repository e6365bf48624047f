"""Waiting for a job to change: noticed immediately if it changes in this process, at the next poll if in another."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from gptoss_bento.state.job import Job


@dataclass(eq=False)
class Watch:
    """A client waits for a job. `ended` is the job with all its output, if that is known without the store."""

    changed: asyncio.Event = field(default_factory=asyncio.Event)
    ended: tuple[Job, Sequence[str]] | None = None


class Changes:
    """The watches of all jobs."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[Watch]] = defaultdict(set)
        self._known: Mapping[str, object] = {}

    @contextmanager
    def of(self, job_id: str) -> Iterator[Watch]:
        """A watch that is notified whenever the job changes."""
        watch = Watch()
        self._waiting[job_id].add(watch)
        try:
            yield watch
        finally:
            self._waiting[job_id].discard(watch)
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    def notify(self, job_ids: Iterable[str]) -> None:
        """These jobs have changed."""
        for job_id in job_ids:
            for watch in self._waiting.get(job_id, ()):
                watch.changed.set()

    def end(self, job: Job, items: Sequence[str]) -> None:
        """This job has ended, with this output."""
        for watch in self._waiting.get(job.id, ()):
            watch.ended = job, items
            watch.changed.set()

    @property
    def watched(self) -> list[str]:
        """The ids of the jobs that a client waits for."""
        return list(self._waiting)

    def compare(self, progress: Mapping[str, object]) -> None:
        """Notifies of the jobs whose progress is new or differs from that of the last call."""
        self.notify(job_id for job_id, now in progress.items() if self._known.get(job_id) != now)
        self._known = progress
