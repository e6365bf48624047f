"""New responses whose call ends before the database has answered, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import sqlalchemy as sa

from gptoss_bento.background.tasks import WorkerTasks
from gptoss_bento.responses.recording import stored_row
from gptoss_bento.state.conversation import StoredConversation
from gptoss_bento.state.conversation_store import ConversationStore
from gptoss_bento.state.database import Database, StoreUnavailableError
from gptoss_bento.state.idempotency import IdempotencyStore, IdempotentUse
from gptoss_bento.state.response import NewResponse
from gptoss_bento.state.response_store import ResponseStore
from gptoss_bento.state.store import JobStore
from gptoss_bento.state.worker_identity import WorkerIdentity
from tests.stores import Clock
from tests.unit.responses.conftest import Api
from tests.unit.responses.test_routes import URL
from tests.unit.state.test_response_store import TTL_MS, W, new
from tests.waiting import HANG_S


@dataclass
class SlowDatabase:
    """A database whose next write waits, before it or until its answer is there.

    Attributes:
        database: behind it.
        waits: `before`, `after` or empty.
        error: raised in place of the answer of this write.
    """

    database: Database
    waits: str = ""
    error: Exception | None = None
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, work: Callable[[sa.Connection], Any], *, writes: bool) -> Any:
        waits, error = (self.waits, self.error) if writes else ("", None)
        if writes:
            self.waits, self.error = "", None
        if waits == "before":
            await self._pause()
        result = await self.database.run(work, writes=writes)
        if waits == "after":
            await self._pause()
        if error:
            raise error
        return result

    async def _pause(self) -> None:
        self.reached.set()
        await self.goes_on.wait()

    async def close(self) -> None:
        await self.database.close()


@dataclass
class Recording:
    """What one worker stores."""

    database: SlowDatabase
    clock: Clock
    tasks: WorkerTasks = field(default_factory=WorkerTasks)

    def __post_init__(self) -> None:
        self.store = ResponseStore(self.database, self.clock)
        self.conversations = ConversationStore(self.database, self.clock)
        self.keys = IdempotencyStore(self.database, self.clock)

    async def turn(self) -> NewResponse:
        """A response in a conversation, whose request has an Idempotency-Key."""
        seen, _ = await self.conversations.history("alice", "conv_1")
        return new(conversation=seen, use=IdempotentUse("key", "fingerprint"))

    async def leave(self, made: NewResponse) -> None:
        """Starts to store a response, and is cancelled meanwhile."""
        call = asyncio.create_task(stored_row(self.store, self.tasks, made, TTL_MS))
        async with asyncio.timeout(HANG_S):
            await self.database.reached.wait()
            call.cancel()
            await asyncio.wait([call])
        assert call.cancelled()
        self.database.goes_on.set()
        await self.tasks.stop(HANG_S)


@pytest.fixture
async def recording(store: JobStore, clock: Clock) -> AsyncIterator[Recording]:
    made = Recording(SlowDatabase(store.database), clock)
    await made.conversations.create("alice", StoredConversation("conv_1", clock(), "{}"), [], TTL_MS)
    yield made
    await made.tasks.stop(HANG_S)


@pytest.mark.parametrize("error", [None, StoreUnavailableError("no answer")])
@pytest.mark.parametrize("waits", ["before", "after"])
@pytest.mark.parametrize("queued", [False, True])
async def test_response_whose_call_is_cancelled_while_it_is_stored_is_gone(
    recording: Recording, waits: str, error: Exception | None, queued: bool
) -> None:
    made = await recording.turn()
    if queued:
        made = replace(made, worker_id=None, request="{}")
    recording.database.waits, recording.database.error = waits, error
    await recording.leave(made)

    assert await recording.store.get("alice", "resp_1") is None
    assert await recording.keys.find("alice", "key") is None
    assert await stored_row(recording.store, recording.tasks, await recording.turn(), TTL_MS)


async def test_response_that_was_stored_before_is_not_taken_back(recording: Recording, store: JobStore) -> None:
    await store.renew_lease(WorkerIdentity(W, "machine", 1, 0))
    made = new()
    await stored_row(recording.store, recording.tasks, made, TTL_MS)
    recording.database.waits = "before"
    await recording.leave(made)

    assert await recording.store.get("alice", "resp_1")


@pytest.mark.parametrize("background", [False, True])
async def test_turn_whose_client_leaves_while_it_is_stored_locks_no_conversation(
    api: Api, monkeypatch: pytest.MonkeyPatch, background: bool
) -> None:
    conversation = (await api.client.post("/v1/conversations", json={})).json()["id"]
    slow = SlowDatabase(api.responses.store.database, waits="after")
    monkeypatch.setattr(api.responses.store, "_database", slow)
    asked = {"conversation": conversation, "input": "x", "request_id": "resp_left", "background": background}
    headers = {"idempotency-key": "key"}
    call = asyncio.create_task(api.client.post(URL, json=asked, headers=headers))
    async with asyncio.timeout(HANG_S):
        await slow.reached.wait()
        call.cancel()
        await asyncio.wait([call])
        slow.goes_on.set()
        while (await api.client.get(f"{URL}/resp_left")).status_code != 404:  # noqa: ASYNC110  # by the task that takes it back
            await asyncio.sleep(0.005)

    assert (await api.client.post(URL, json=asked, headers=headers)).status_code == 200
