"""The values of Idempotency-Key in the store, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gptoss_bento.state import idempotency
from gptoss_bento.state.idempotency import KEPT_MS, EarlierUse, IdempotencyStore, IdempotentUse, KeyUsedError
from gptoss_bento.state.queue_limits import QueueFullError
from gptoss_bento.state.response_store import ResponseStore
from gptoss_bento.state.store import JobStore
from tests.stores import Clock
from tests.unit.state.stored import NEW
from tests.unit.state.test_response_store import TTL_MS, new

USE = IdempotentUse("key", "fingerprint")


@pytest.fixture
def responses(store: JobStore, clock: Clock) -> ResponseStore:
    return ResponseStore(store._database, clock)


@pytest.fixture
def keys(store: JobStore, clock: Clock) -> IdempotencyStore:
    return IdempotencyStore(store._database, clock)


async def test_key_is_used_once_by_each_owner(responses: ResponseStore, keys: IdempotencyStore) -> None:
    await responses.create(new("a", use=USE), TTL_MS)
    with pytest.raises(KeyUsedError):
        await responses.create(new("b", use=USE), TTL_MS)
    await responses.create(new("b", "bob", use=USE), TTL_MS)

    assert await keys.find("alice", "key") == EarlierUse("fingerprint", "a")
    assert await keys.find("bob", "key") == EarlierUse("fingerprint", "b")
    assert await keys.find("carol", "key") is None
    assert await responses.get("alice", "b") is None


async def test_key_of_concurrent_requests_makes_one(responses: ResponseStore) -> None:
    made = await asyncio.gather(
        *(responses.create(new(f"r{number}", use=USE), TTL_MS) for number in range(8)), return_exceptions=True
    )

    assert sum(isinstance(each, int) for each in made) == 1
    assert sum(isinstance(each, KeyUsedError) for each in made) == 7


async def test_key_is_free_after_a_day(responses: ResponseStore, keys: IdempotencyStore, clock: Clock) -> None:
    await responses.create(new("a", use=USE), TTL_MS)
    clock.now += KEPT_MS
    assert await keys.find("alice", "key") is None

    await responses.create(new("b", use=USE), TTL_MS)
    assert await keys.find("alice", "key") == EarlierUse("fingerprint", "b")


async def test_key_is_free_if_what_it_made_is_no_response(responses: ResponseStore, keys: IdempotencyStore) -> None:
    row = await responses.create(new("a", use=USE), TTL_MS)
    await responses.discard(row)
    assert await keys.find("alice", "key") is None

    await responses.create(new("b", use=USE), TTL_MS)
    await responses.forget(new("b", use=USE))
    assert await keys.find("alice", "key") is None


async def test_key_stays_with_a_deleted_response(responses: ResponseStore, keys: IdempotencyStore) -> None:
    await responses.create(new("a", use=USE), TTL_MS)
    await responses.delete("alice", "a")

    assert await keys.find("alice", "key") == EarlierUse("fingerprint", "a")


async def test_key_is_replaced_once(responses: ResponseStore, keys: IdempotencyStore) -> None:
    await responses.create(new("a", use=USE), TTL_MS)
    again = replace(USE, replaces="a")
    await responses.create(new("b", use=again), TTL_MS)
    with pytest.raises(KeyUsedError):
        await responses.create(new("c", use=again), TTL_MS)

    assert await keys.find("alice", "key") == EarlierUse("fingerprint", "b")


async def test_key_of_a_job_is_stored_with_it_alone(store: JobStore, keys: IdempotencyStore) -> None:
    with pytest.raises(QueueFullError):
        await store.submit(NEW, 0, use=USE)
    assert await keys.find("", "key") is None

    await store.submit(NEW, 10, use=USE)
    with pytest.raises(KeyUsedError):
        await store.submit(replace(NEW, id="b"), 10, use=USE)
    assert await keys.find("", "key") == EarlierUse("fingerprint", "a")
    assert await store.get("b") is None


async def test_keys_that_are_over_or_too_many_are_deleted(
    responses: ResponseStore, keys: IdempotencyStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "_MOST_OF_OWNER", 2)
    await responses.create(new("old", use=replace(USE, key="old")), 2 * KEPT_MS)
    clock.now += KEPT_MS - 10
    for number in range(4):
        clock.now += 1
        await responses.create(new(f"r{number}", use=replace(USE, key=f"k{number}")), TTL_MS)
    assert await keys.clean() == 3

    clock.now += KEPT_MS
    assert await keys.clean() == 2
    assert await keys.clean() == 0
