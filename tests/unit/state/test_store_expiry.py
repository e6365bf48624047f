"""How long jobs and their results are kept."""

from __future__ import annotations

import pytest

from gptoss_bento.state.job import Status
from gptoss_bento.state.store import JobStore
from tests.stores import Clock
from tests.unit.state.stored import W, running, submit


async def test_result_is_kept_for_its_time(store: JobStore, clock: Clock) -> None:
    claim = await running(store, result_ttl_ms=1000)
    clock.now += 50
    await store.finish(claim, Status.COMPLETED)

    clock.now += 999
    assert await store.get("a")
    clock.now += 1
    assert await store.get("a") is None
    assert await store.cancel("a") is None
    assert await store.retry("a", 9) == (None, False)
    assert await store.take("a") == (None, [])


async def test_result_is_not_kept_beyond_the_jobs_time_to_live(store: JobStore, clock: Clock) -> None:
    claim = await running(store, ttl_ms=500)
    await store.finish(claim, Status.COMPLETED)
    clock.now += 500

    assert await store.get("a") is None


@pytest.mark.parametrize("run", [False, True])
async def test_job_over_its_time_to_live_is_stopped_and_not_found(store: JobStore, clock: Clock, run: bool) -> None:
    await submit(store, "a", ttl_ms=500)
    claims = await store.claim(W, 1) if run else []
    assert await store.expire() == []
    clock.now += 500

    assert await store.claim(W, 1) == []
    assert await store.get("a") is None
    assert await store.expire() == ["a"]
    assert await store.owned(claims) == set()
    assert (await store.snapshot("a"))[0].status is Status.TIMED_OUT  # type: ignore[union-attr]


async def test_result_with_a_shorter_time_expires_earlier(store: JobStore, clock: Clock) -> None:
    claim = await running(store)
    await store.finish(claim, Status.COMPLETED)
    await store.shorten("a", 100)
    await store.shorten("a", 10**12)
    clock.now += 100

    assert await store.get("a") is None


async def test_result_with_a_shorter_time_does_not_stop_a_running_job(store: JobStore, clock: Clock) -> None:
    claim = await running(store)
    await store.shorten("a", 100)
    clock.now += 1000
    assert await store.get("a")
    await store.finish(claim, Status.COMPLETED)
    clock.now += 100

    assert await store.get("a") is None


async def test_expired_jobs_are_deleted_but_counted(store: JobStore, clock: Clock) -> None:
    for job_id, status in [("a", Status.COMPLETED), ("b", Status.FAILED), ("c", Status.TIMED_OUT)]:
        await store.finish(await running(store, job_id), status, 0, ["1"])
    await store.retry("b", 9)
    (claim,) = await store.claim(W, 1)
    await store.finish(claim, Status.FAILED)
    await submit(store, "d")
    before = await store.counts()
    assert (before.completed, before.failed, before.in_queue, before.in_progress, before.retried) == (1, 2, 1, 0, 1)

    assert await store.clean() == 0
    clock.now += 1_800_000
    assert await store.clean() == 3
    assert await store.counts() == before
    assert await store.snapshot("a") == (None, [])
    assert await store.get("d")
