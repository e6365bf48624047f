"""Responses in the background in the store, on SQLite and on PostgreSQL: queued, claimed, and run again."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from gptoss_bento.state.migrations import MIGRATIONS, migrate
from gptoss_bento.state.response import NewResponse, ResponseStatus, StoredResponse
from gptoss_bento.state.response_queue import Claimed, Length, ResponseQueue
from gptoss_bento.state.response_store import AFTER_A_STREAM, AFTER_ANOTHER_RUN, ResponseExistsError, ResponseStore
from gptoss_bento.state.schema import RESPONSE_REQUESTS
from gptoss_bento.state.store import JobStore
from gptoss_bento.state.worker_identity import WorkerIdentity
from tests.stores import Clock
from tests.unit.state.test_response_store import TTL_MS, W, new

REQUEST = '{"request":{},"body":{}}'
OTHER = "other worker"


def waiting(response_id: str = "resp_1", owner: str = "alice", **fields: Any) -> NewResponse:
    text = json.dumps({"id": response_id, "status": "queued"})
    made = new(response_id, owner, status=ResponseStatus.QUEUED, request=REQUEST, keeps_events=True)
    return replace(made, object=text, worker_id=None, **fields)


@pytest.fixture
def responses(store: JobStore, clock: Clock) -> ResponseStore:
    return ResponseStore(store._database, clock)


@pytest.fixture
def queue(store: JobStore, clock: Clock) -> ResponseQueue:
    return ResponseQueue(store._database, clock)


async def claimed(responses: ResponseStore, queue: ResponseQueue, response: NewResponse | None = None) -> Claimed:
    row = await responses.create(response or waiting(), TTL_MS)
    claim = await queue.claim(row, W)
    assert claim
    assert await responses.start(row, '{"id":"resp_1","status":"in_progress"}', claim.attempt)
    return claim


async def found(responses: ResponseStore, response_id: str = "resp_1") -> StoredResponse:
    response = await responses.get("alice", response_id)
    assert response
    return response


async def requests_kept(store: JobStore) -> int:
    def count(connection: sa.Connection) -> int:
        return int(connection.execute(sa.select(sa.func.count()).select_from(RESPONSE_REQUESTS)).scalar_one())

    return await store._database.run(count, writes=False)


async def test_waiting_response_is_claimed_once(responses: ResponseStore, queue: ResponseQueue) -> None:
    row = await responses.create(waiting(), TTL_MS)
    assert (await queue.length("alice")).total == 1
    claims = await asyncio.gather(*(queue.claim(row, worker) for worker in (W, OTHER) * 3))

    (claim,) = [each for each in claims if each]
    assert claim == Claimed(row, 1, "alice", "resp_1", waiting().object, REQUEST)
    assert (await queue.length("alice")).total == 0
    assert await queue.waiting((), 10) == []


async def test_owners_take_turns_whatever_each_has_queued(responses: ResponseStore, queue: ResponseQueue) -> None:
    for number in range(4):
        await responses.create(waiting(f"a{number}", "alice"), TTL_MS)
    for number in range(2):
        await responses.create(waiting(f"b{number}", "bob"), TTL_MS)

    assert await queue.length("bob") == Length(total=6, of_owner=2)
    assert [each.owner for each in await queue.waiting((), 10)] == ["alice", "bob", "alice", "bob", "alice", "alice"]
    assert [each.owner for each in await queue.waiting({"alice"}, 10)] == ["bob", "bob"]
    for each in (await queue.waiting((), 10))[:1]:
        await queue.claim(each.row, W)
    assert [each.owner for each in await queue.waiting((), 10)] == ["bob", "alice", "bob", "alice", "alice"]


async def test_key_limits_wait_with_a_response_through_its_runs(responses: ResponseStore, queue: ResponseQueue) -> None:
    row = await responses.create(waiting(key_limits='{"streams":1}'), TTL_MS)
    await responses.create(waiting("without"), TTL_MS)
    claim = await queue.claim(row, W)
    assert claim
    assert await queue.requeue(row, claim.attempt, counts=True)

    assert [each.key_limits for each in await queue.waiting((), 10)] == ['{"streams":1}', None]


async def test_expired_response_does_not_wait(responses: ResponseStore, queue: ResponseQueue, clock: Clock) -> None:
    await responses.create(waiting(), TTL_MS)
    clock.now += TTL_MS

    assert (await queue.length("alice"), await queue.waiting((), 10)) == (Length(0, 0), [])


async def test_lost_response_without_a_reader_runs_again_once(
    responses: ResponseStore, queue: ResponseQueue, store: JobStore
) -> None:
    await store.renew_lease(WorkerIdentity(OTHER, "machine", 1, 0))
    first = await claimed(responses, queue)
    assert await responses.append(first.row, 0, ["{}", "{}"], first.attempt)

    assert (await responses.fail_lost(), await queue.requeue_lost()) == (0, 1)
    again = await found(responses)
    assert (again.status, again.event_count, json.loads(again.body)["status"]) == ("queued", 0, "queued")
    assert await queue.requeue_lost() == 0
    second = await queue.claim(first.row, W)
    assert second
    assert second.attempt > first.attempt

    assert (await queue.requeue_lost(), await responses.fail_lost()) == (0, 1)
    ended = await found(responses)
    assert json.loads(ended.body)["error"]["message"] == AFTER_ANOTHER_RUN
    assert await requests_kept(store) == 0


async def test_lost_response_with_a_reader_fails(responses: ResponseStore, queue: ResponseQueue) -> None:
    claim = await claimed(responses, queue)
    await responses.append(claim.row, 0, ["{}"], claim.attempt)
    assert await queue.mark_followed(claim.row, claim.attempt)
    assert (await found(responses)).is_followed

    assert (await queue.requeue_lost(), await responses.fail_lost()) == (0, 1)
    assert json.loads((await found(responses)).body)["error"]["message"] == AFTER_A_STREAM


async def test_lost_response_without_its_request_fails(responses: ResponseStore, queue: ResponseQueue) -> None:
    await responses.create(new(), TTL_MS)

    assert (await queue.requeue_lost(), await responses.fail_lost()) == (0, 1)


async def test_reader_that_comes_after_the_requeue_is_refused(responses: ResponseStore, queue: ResponseQueue) -> None:
    claim = await claimed(responses, queue)
    await queue.requeue_lost()

    assert not await queue.mark_followed(claim.row, claim.attempt)
    assert not (await found(responses)).is_followed


async def test_writes_of_an_earlier_run_have_no_effect(responses: ResponseStore, queue: ResponseQueue) -> None:
    first = await claimed(responses, queue)
    await queue.requeue_lost()

    async def writes_nothing() -> None:
        assert not await responses.runs(first.row, first.attempt)
        assert not await responses.start(first.row, "{}", first.attempt)
        assert not await responses.append(first.row, 0, ["{}"], first.attempt)
        assert not await responses.finish(first.row, ResponseStatus.COMPLETED, "{}", attempt=first.attempt)
        await responses.fail(first.row, "late", first.attempt)
        assert not await queue.requeue(first.row, first.attempt, counts=False)

    await writes_nothing()
    second = await queue.claim(first.row, OTHER)
    assert second
    await writes_nothing()
    assert await responses.finish(second.row, ResponseStatus.COMPLETED, "{}", attempt=second.attempt)
    await writes_nothing()
    assert (await found(responses)).status is ResponseStatus.COMPLETED


@pytest.mark.parametrize("counts", [False, True])
async def test_interrupted_response_runs_again(responses: ResponseStore, queue: ResponseQueue, counts: bool) -> None:
    claim = await claimed(responses, queue)
    for _ in range(3):
        requeued = await queue.requeue(claim.row, claim.attempt, counts=counts)
        again = await queue.claim(claim.row, W)
        claim = again or claim
    assert requeued is not counts


async def test_interrupted_response_with_a_reader_does_not_run_again(
    responses: ResponseStore, queue: ResponseQueue
) -> None:
    claim = await claimed(responses, queue)
    await queue.mark_followed(claim.row, claim.attempt)

    assert not await queue.requeue(claim.row, claim.attempt, counts=False)


async def test_claim_without_an_answer_of_the_database_is_undone(
    responses: ResponseStore, queue: ResponseQueue
) -> None:
    row = await responses.create(waiting(), TTL_MS)
    await queue.claim(row, W)
    await queue.unclaim(row, OTHER)
    assert (await queue.length("alice")).total == 0

    await queue.unclaim(row, W)
    assert (await queue.length("alice")).total == 1


async def test_request_is_kept_until_the_response_ends(
    responses: ResponseStore, queue: ResponseQueue, store: JobStore, clock: Clock
) -> None:
    rows = [await responses.create(waiting(f"r{number}"), TTL_MS) for number in range(6)]
    assert await requests_kept(store) == 6
    claim = await queue.claim(rows[0], W)
    assert claim
    await responses.finish(rows[0], ResponseStatus.COMPLETED, "{}", attempt=claim.attempt)
    await responses.cancel("alice", "r1")
    await responses.delete("alice", "r2")
    await responses.discard(rows[3])
    await responses.fail(rows[4], "why")
    assert await requests_kept(store) == 1

    clock.now += TTL_MS
    assert await responses.clean() == 6
    assert await requests_kept(store) == 0


async def test_id_of_a_lost_response_that_runs_again_is_not_free(
    responses: ResponseStore, queue: ResponseQueue
) -> None:
    await claimed(responses, queue)

    with pytest.raises(ResponseExistsError):
        await responses.create(waiting(), TTL_MS)


async def test_migration_adds_runs_to_stored_responses(
    store: JobStore, responses: ResponseStore, queue: ResponseQueue
) -> None:
    def as_it_was(connection: sa.Connection) -> None:
        for name in ("attempt", "recoveries", "is_followed"):
            connection.execute(sa.text(f"ALTER TABLE responses DROP COLUMN {name}"))
        connection.execute(sa.text("DROP TABLE response_requests"))
        connection.execute(sa.text("DROP TABLE idempotency_keys"))
        connection.execute(sa.text("UPDATE schema_version SET version = 8"))

    row = await responses.create(new(), TTL_MS)
    await store._database.run(as_it_was, writes=True)
    await migrate(store._database, MIGRATIONS)

    assert await responses.finish(row, ResponseStatus.COMPLETED, "{}")
    assert not (await found(responses)).is_followed
    await responses.create(waiting("resp_2", key_limits='{"streams":1}'), TTL_MS)
    assert [each.key_limits for each in await queue.waiting((), 10)] == ['{"streams":1}']
