"""Limits at acceptance: how many jobs may wait, and how many unfinished jobs one owner may have."""

from __future__ import annotations

import sqlalchemy as sa

from gptoss_bento.state.job import Status
from gptoss_bento.state.owner_lock import lock_of, take_lock
from gptoss_bento.state.schema import JOBS
from gptoss_bento.state.statements import queue_length

_LOCK_THRESHOLD = 1000  # more than can be accepted concurrently: PostgreSQL has fewer connections


class QueueFullError(Exception):
    """The queue is full, or this owner has as many unfinished jobs as allowed."""


def check_queue_length(connection: sa.Connection, most: int) -> int:
    """Refuses a job if `most` jobs wait already. Returns how many wait.

    Raises:
        QueueFullError: the queue is full.
    """
    waiting = queue_length(connection)
    if most - _LOCK_THRESHOLD < waiting < most:  # further away, concurrent jobs cannot fill it
        _take_queue_lock(connection, "")
        waiting = queue_length(connection)
    if waiting >= most:
        raise QueueFullError(f"{most} jobs wait already.")
    return waiting


def check_owner_limit(connection: sa.Connection, owner: str | None, most: int) -> None:
    """Refuses a job if its owner has `most` unfinished jobs.

    Raises:
        QueueFullError: the owner has that many.
    """
    _take_queue_lock(connection, owner or "")
    not_ended = JOBS.c.status.in_((Status.IN_QUEUE, Status.IN_PROGRESS))
    of_owner = sa.select(sa.func.count()).select_from(JOBS).where(not_ended & (JOBS.c.owner == owner))
    if connection.execute(of_owner).scalar_one() >= most:
        raise QueueFullError(f"This key may have {most} unfinished jobs. Try again later.")


TAKE_QUEUE_LOCK = lock_of("jobs")


def _take_queue_lock(connection: sa.Connection, owner: str) -> None:
    """Takes an exclusive lock on the jobs of this owner, or on the queue (""), until this transaction ends."""
    take_lock(connection, TAKE_QUEUE_LOCK, owner)
