"""A job: its states, which state may follow which, and its record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gptoss_bento import strict_json


class Status(StrEnum):
    """The states RunPod's SDKs know. They write CANCELLED, and never RUNNING."""

    IN_QUEUE = "IN_QUEUE"  # accepted, waits for a free slot
    IN_PROGRESS = "IN_PROGRESS"  # a worker runs it
    COMPLETED = "COMPLETED"  # ended with all its output
    FAILED = "FAILED"  # its input was wrong, or the engine could not answer
    CANCELLED = "CANCELLED"  # the client cancelled it, or purged the queue
    TIMED_OUT = "TIMED_OUT"  # its time to run or to live was exceeded

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended; only a retry changes such a state."""
        return self not in (Status.IN_QUEUE, Status.IN_PROGRESS)


_FOLLOWS: dict[Status, frozenset[Status]] = {
    # IN_PROGRESS → IN_QUEUE: the process that ran it has ended; the job runs again.
    Status.IN_QUEUE: frozenset({Status.FAILED, Status.TIMED_OUT, Status.IN_PROGRESS}),
    Status.IN_PROGRESS: frozenset({Status.IN_QUEUE}),
    Status.COMPLETED: frozenset({Status.IN_PROGRESS}),
    Status.FAILED: frozenset({Status.IN_PROGRESS}),
    Status.CANCELLED: frozenset({Status.IN_QUEUE, Status.IN_PROGRESS}),
    Status.TIMED_OUT: frozenset({Status.IN_QUEUE, Status.IN_PROGRESS}),
}

RETRYABLE = frozenset({Status.FAILED, Status.TIMED_OUT})
"""The states from which `/retry` queues a job again."""


def before(status: Status) -> frozenset[Status]:
    """The states from which a job may enter `status`. Every change of state in the store checks this."""
    return _FOLLOWS[status]


@dataclass(frozen=True)
class NewJob:
    """A job that is to be stored. Durations in milliseconds."""

    id: str
    input: str  # JSON text
    webhook: str | None
    low_priority: bool
    execution_timeout_ms: int
    ttl_ms: int
    result_ttl_ms: int
    owner: str | None = None  # `owner` of the key that submitted it
    key_limits: str | None = None  # the key's limits at that time: JSON text


@dataclass(frozen=True)
class Job:
    """A stored job without its input and output. Times are milliseconds since 1970."""

    id: str
    status: Status
    queued_at: int
    started_at: int | None
    ended_at: int | None
    expires_at: int
    worker_id: str | None
    attempt: int
    retries: int
    error: str | None
    item_count: int
    delivered: int
    refused: bool = False  # FAILED because of its input: the same input fails again
    owner: str | None = None  # `owner` of the key that submitted it
    key_limits: str | None = None  # the key's limits at that time: JSON text

    @property
    def deliverable(self) -> int:
        """How many items `/stream` has for clients: of a job that failed, its error is one more, the last."""
        return self.item_count + int(self.status in RETRYABLE)

    @property
    def error_item(self) -> str:
        """The JSON text of that last item, for RunPod's SDKs, which show nothing but items."""
        return strict_json.dumps({"error": self._error_text})

    @property
    def _error_text(self) -> str:
        return self.error or "The job failed."

    def body(self, items: Sequence[str] = ()) -> str:
        """The job object of `/status`, one line of JSON. `items` are the JSON texts of the output."""
        text = strict_json.dumps(self._fields())
        if self.status is Status.COMPLETED:
            text = f'{text[:-1]},"output":[{",".join(items)}]}}'
        return text

    def _fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"id": self.id, "status": self.status.value}
        if self.started_at is not None:
            fields["delayTime"] = max(0, self.started_at - self.queued_at)
            if self.ended_at is not None:
                fields["executionTime"] = max(0, self.ended_at - self.started_at)
            fields["workerId"] = self.worker_id
        if self.status in RETRYABLE:
            fields["error"] = self._error_text
        if self.retries:
            fields["retries"] = self.retries
        return fields


@dataclass(frozen=True)
class Claim:
    """A job that this worker runs. `attempt` numbers its runs: the store ignores writes of any but the newest.

    A claim is lost when the job is ended or taken over by another process."""

    id: str
    attempt: int
    worker_id: str
    input: str  # JSON text
    execution_timeout_ms: int
    expires_at: int
    owner: str | None = None
    key_limits: str | None = None
    has_webhook: bool = False


@dataclass(frozen=True)
class Counts:
    """How many jobs `/health` reports; the ended ones since the store was created."""

    completed: int = 0
    failed: int = 0
    in_progress: int = 0
    in_queue: int = 0
    retried: int = 0


@dataclass(frozen=True)
class Webhook:
    """A delivery that is due; `attempt` counts from 1."""

    job_id: str
    url: str
    attempt: int
