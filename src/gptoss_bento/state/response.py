"""A stored response of /v1/responses: its states, and its records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from gptoss_bento.state.conversation import ConversationState
from gptoss_bento.state.idempotency import IdempotentUse
from gptoss_bento.strict_json import dumps, loads_stored


class ResponseStatus(StrEnum):
    """The states of OpenAI's API."""

    QUEUED = "queued"  # in the background, and not started
    IN_PROGRESS = "in_progress"  # a worker generates it
    COMPLETED = "completed"  # ended with all its output
    INCOMPLETE = "incomplete"  # ended at a limit of tokens
    FAILED = "failed"  # the engine could not answer, or its worker ended
    CANCELLED = "cancelled"  # its client left or cancelled it

    @property
    def is_terminal(self) -> bool:
        """Whether the response has ended; nothing changes it any more."""
        return self not in RUNNING


RUNNING = frozenset({ResponseStatus.QUEUED, ResponseStatus.IN_PROGRESS})


@dataclass(frozen=True)
class StoredItem:
    """An item of a request or of an output.

    Args:
        id: of the item.
        text: the whole item, as JSON.
    """

    id: str
    text: str


@dataclass(frozen=True)
class NewResponse:
    """A response that is about to be generated.

    Args:
        owner: of its key; empty on an open server.
        id: of the response; the owner has no other of it.
        object: the response's object as JSON, without `output`.
        input: the items of the request, without those of earlier responses.
        previous: the id of the response that it continues.
        worker_id: of the worker that generates it; None: it waits for one.
        keeps_events: whether its events are stored, so that its stream can be resumed.
        request: what another worker needs to generate it, as JSON; None: no other may.
        key_limits: of its key, as JSON, kept beside `request`; None: none.
        attempt: the number of its run, from 1; 0: it is no run of the background.
        use: of the client's Idempotency-Key.
        conversation: the one that it is a turn of, as its prompt has it.
    """

    owner: str
    id: str
    object: str
    input: Sequence[StoredItem]
    previous: str | None
    worker_id: str | None
    status: ResponseStatus = ResponseStatus.IN_PROGRESS
    keeps_events: bool = False
    request: str | None = None
    key_limits: str | None = None
    attempt: int = 0
    use: IdempotentUse | None = None
    conversation: ConversationState | None = None


@dataclass(frozen=True)
class StoredResponse:
    """A response as it is stored; `output` has the JSON texts of its items, `attempt` numbers its newest run."""

    id: str
    status: ResponseStatus
    object: str
    event_count: int
    keeps_events: bool
    output: tuple[str, ...] = ()
    row: int = field(default=0, compare=False)  # in the database
    attempt: int = 0
    is_followed: bool = False

    @property
    def body(self) -> str:
        """The whole object, one line of JSON."""
        return with_output(self.object, self.output)


@dataclass(frozen=True)
class Page:
    """Items in the order that was asked for."""

    items: tuple[StoredItem, ...]
    has_more: bool


def with_output(object_text: str, items: Sequence[str]) -> str:
    """The JSON of a response's object with its output: both are stored apart, so that no item is stored twice."""
    return f'{object_text[:-1]},"output":[{",".join(items)}]}}'


def changed(object_text: str, status: ResponseStatus, error: str | None = None) -> str:
    """The object of a response whose state changes without its worker.

    Args:
        object_text: its object as JSON.
        status: its new state.
        error: why it failed.
    """
    fields: dict[str, Any] = loads_stored(object_text)
    fields["status"] = status.value
    if error is not None:
        fields["error"] = {"code": "server_error", "message": error}
    return dumps(fields)
