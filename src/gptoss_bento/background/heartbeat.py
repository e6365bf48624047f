"""The lease of this worker, renewed by its heartbeat, and the takeover of work whose worker has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gptoss_bento.state.clock import Clock
from gptoss_bento.state.worker_identity import WorkerIdentity, is_gone
from gptoss_bento.workers.worker_group import WorkerGroup

LEASE_MS = 15_000
"""Without a heartbeat for so long, a worker counts as dead and its work goes to others."""


class LeaseStore(Protocol):
    """A store of work that workers claim."""

    async def renew_lease(self, worker: WorkerIdentity, /) -> None: ...

    async def release_lease(self, worker_id: str, /) -> None: ...

    async def recover(self, lease_ms: int, is_gone: Callable[[WorkerIdentity], bool], /) -> list[str]:
        """Takes over the work of workers without a lease. Returns its ids."""
        ...


class Heartbeat:
    """Keeps this worker's lease, and ends those of dead workers."""

    def __init__(self, store: LeaseStore, worker: WorkerIdentity, clock: Clock, group: WorkerGroup) -> None:
        self._store = store
        self._worker = worker
        self._clock = clock
        self._group = group
        self._last = clock()
        self._others_count_from = 0  # before that time, an expired lease of another worker proves nothing

    async def start(self) -> list[str]:
        """Takes the lease. Returns the ids of the work that a former process left."""
        await self._store.renew_lease(self._worker)
        return await self._store.recover(LEASE_MS, self._is_gone)

    async def beat(self) -> list[str]:
        """Renews the lease. Returns the ids of the work that was taken over from dead workers."""
        await self._store.renew_lease(self._worker)
        now = self._clock()
        if now - self._last > LEASE_MS // 2:  # the store was unavailable: no worker could renew its lease
            self._others_count_from = now + LEASE_MS
        self._last = now
        return await self._store.recover(LEASE_MS, self._is_gone) if now >= self._others_count_from else []

    async def stop(self) -> None:
        """Releases the lease."""
        await self._store.release_lease(self._worker.worker_id)

    def _is_gone(self, worker: WorkerIdentity) -> bool:
        """A worker of this service that was killed ends the whole service; the next start takes over its work."""
        return is_gone(worker) and not self._group.has(worker.pid)
