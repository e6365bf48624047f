"""Batches of /v1/batches as the store has them. Pure. Times are seconds since 1970, as in OpenAI's objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class BatchStatus(StrEnum):
    """OpenAI's names."""

    VALIDATING = "validating"  # also while it waits for a worker
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"  # each line has an answer
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"  # its input is wrong; no line was run
    CANCELLED = "cancelled"
    EXPIRED = "expired"


UNFINISHED = frozenset(
    {BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING, BatchStatus.CANCELLING}
)


@dataclass(frozen=True)
class NewBatch:
    """A batch that is to be run.

    Attributes:
        key_limits: of its key, as JSON; None: none.
        metadata: JSON, or None.
        window_s: seconds that it has.
        output_ttl_s: seconds that its output is kept.
        ttl_s: seconds that the batch is kept after its window.
    """

    owner: str
    id: str
    endpoint: str
    input_file_id: str
    key_limits: str | None
    metadata: str | None
    window_s: int
    output_ttl_s: int
    ttl_s: int


@dataclass(frozen=True)
class StoredBatch:
    """A batch. `metadata`, `errors` and `usage` are JSON texts.

    Attributes:
        attempt: which run this is.
        interruptions: how many runs ended with their worker, without giving the batch back.
    """

    owner: str
    key_limits: str | None
    id: str
    status: BatchStatus
    endpoint: str
    input_file_id: str
    output_file_id: str | None
    error_file_id: str | None
    output_ttl_s: int
    metadata: str | None
    model: str | None
    created_at: int
    in_progress_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    expires_at: int
    errors: str | None
    usage: str | None
    total: int
    completed: int
    failed: int
    attempt: int
    interruptions: int


@dataclass(frozen=True)
class BatchClaim:
    """A batch that this worker runs; it is lost once another worker claims the batch."""

    id: str
    attempt: int


@dataclass(frozen=True)
class BatchPage:
    """Part of a list."""

    batches: tuple[StoredBatch, ...]
    has_more: bool


@dataclass(frozen=True)
class OutputFile:
    """A file that a batch has written.

    Attributes:
        stored_as: its name in the folder.
        is_error: whether it has the lines that failed.
    """

    id: str
    filename: str
    bytes: int
    stored_as: str
    is_error: bool


@dataclass(frozen=True)
class BatchEnd:
    """How a batch ends.

    Attributes:
        errors: what is wrong with its input, as JSON.
        usage: the tokens of its answers, as JSON.
    """

    status: BatchStatus
    completed: int = 0
    failed: int = 0
    errors: str | None = None
    usage: str | None = None
    files: Sequence[OutputFile] = ()
