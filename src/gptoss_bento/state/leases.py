"""Which worker processes are alive: each renews its lease, and the work of one that does not goes to others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import sqlalchemy as sa

from gptoss_bento.state.schema import WORKERS
from gptoss_bento.state.worker_identity import WorkerIdentity


def renew(connection: sa.Connection, worker: WorkerIdentity, now: int) -> None:
    """Records that this worker is alive at `now`, milliseconds since 1970."""
    values = asdict(worker) | {"seen_at": now}
    renewed = connection.execute(WORKERS.update().where(WORKERS.c.worker_id == worker.worker_id).values(values))
    if not renewed.rowcount:
        connection.execute(WORKERS.insert().values(values))


def release(connection: sa.Connection, worker_id: str) -> None:
    """Records that this worker has ended."""
    connection.execute(WORKERS.delete().where(WORKERS.c.worker_id == worker_id))


def end_expired(connection: sa.Connection, oldest: int, is_gone: Callable[[WorkerIdentity], bool]) -> list[str]:
    """Ends the leases that were last renewed before `oldest`, and those of processes that are gone.

    Returns the ids of the workers that are alive.
    """
    rows = list(connection.execute(sa.select(WORKERS)))
    dead = {row.worker_id for row in rows if row.seen_at < oldest or is_gone(WorkerIdentity(*row[:4]))}
    if dead:
        connection.execute(WORKERS.delete().where(WORKERS.c.worker_id.in_(sorted(dead))))
    return [row.worker_id for row in rows if row.worker_id not in dead]
