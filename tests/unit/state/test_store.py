"""The job store, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio

import pytest

from gptoss_bento.state.job import Claim, Status
from gptoss_bento.state.queue_limits import QueueFullError
from gptoss_bento.state.store import JobStore
from tests.stores import Clock
from tests.unit.state.stored import NEW, W, found, running, submit


async def test_submitted_job_is_found_again(store: JobStore, clock: Clock) -> None:
    job = await store.submit(NEW, 1)

    assert job == await store.get("a")
    assert (job.status, job.queued_at, job.expires_at) == (Status.IN_QUEUE, clock.now, clock.now + 86_400_000)
    assert await store.get("b") is None


async def test_queue_is_first_in_first_out_low_priority_last(store: JobStore, clock: Clock) -> None:
    await submit(store, "low", low_priority=True)
    for job_id in "abc":
        clock.now += 1
        await submit(store, job_id)

    assert [claim.id for claim in await store.claim(W, 2)] == ["a", "b"]
    assert [claim.id for claim in await store.claim(W, 9)] == ["c", "low"]
    assert await store.claim(W, 9) == []


async def test_claim_has_what_a_run_needs(store: JobStore, clock: Clock) -> None:
    clock.now += 5
    claim = await running(store)

    assert claim == Claim("a", 1, W, NEW.input, 600_000, clock.now + 86_400_000)
    job = await found(store)
    assert (job.status, job.started_at, job.worker_id) == (Status.IN_PROGRESS, clock.now, W)
    assert not await store.waiting()


async def test_claims_made_concurrently_never_overlap(store: JobStore) -> None:
    await submit(store, *(f"j{i}" for i in range(40)))
    claimed = await asyncio.gather(*(store.claim(f"w{i}", 5) for i in range(12)))
    ids = [claim.id for claims in claimed for claim in claims]

    while more := await store.claim("late", 5):  # SKIP LOCKED may leave some to the next round
        ids += [claim.id for claim in more]
    assert sorted(ids) == sorted(f"j{i}" for i in range(40))


async def test_output_is_returned_in_the_order_of_its_items(store: JobStore) -> None:
    claim = await running(store)

    assert await store.append(claim, 0, ["1", "2"])
    assert await store.finish(claim, Status.COMPLETED, 2, ["3"])
    job, items = await store.output("a")
    assert job is not None
    assert (job.status, job.item_count, items) == (Status.COMPLETED, 3, ["1", "2", "3"])


async def test_append_that_is_repeated_adds_nothing(store: JobStore) -> None:
    claim = await running(store)

    assert await store.append(claim, 0, ["1", "2"])
    assert await store.append(claim, 0, ["1", "2"])
    assert (await found(store)).item_count == 2


async def test_output_of_a_job_that_has_not_completed_is_empty(store: JobStore) -> None:
    claim = await running(store)
    await store.finish(claim, Status.FAILED, 0, ["1"], "why\0 \ud800")

    job, items = await store.output("a")
    assert job is not None
    assert (job.error, items) == ("why ?", [])


async def test_stream_returns_each_item_once(store: JobStore) -> None:
    claim = await running(store)
    await store.append(claim, 0, ["1", "2"])
    taken = await asyncio.gather(*(store.take("a") for _ in range(5)))

    assert sorted(items for _, items in taken) == [[], [], [], [], ["1", "2"]]
    await store.finish(claim, Status.COMPLETED, 2, ["3"])
    job, items = await store.take("a")
    assert job is not None
    assert (job.status, items) == (Status.COMPLETED, ["3"])
    assert (await store.take("a"))[1] == []
    assert (await store.output("a"))[1] == ["1", "2", "3"]


@pytest.mark.parametrize("status", [Status.FAILED, Status.TIMED_OUT])
async def test_stream_of_a_failed_job_ends_with_its_error_once(store: JobStore, status: Status) -> None:
    claim = await running(store)
    await store.append(claim, 0, ["1"])
    assert (await store.take("a"))[1] == ["1"]
    await store.finish(claim, status, 1, ["2"], 'not "right"')
    taken = await asyncio.gather(*(store.take("a") for _ in range(5)))

    assert sorted(items for _, items in taken)[-2:] == [[], ["2", '{"error":"not \\"right\\""}']]
    assert (await store.take("a"))[1] == []
    await store.retry("a", 100)
    (again,) = await store.claim(W, 1)
    await store.finish(again, Status.COMPLETED, 0, ["3"])
    assert (await store.take("a"))[1] == ["3"]


@pytest.mark.parametrize("run", [False, True])
async def test_cancelled_job_stays_cancelled(store: JobStore, run: bool) -> None:
    await submit(store, "a")
    claims = await store.claim(W, 1) if run else []

    job = await store.cancel("a")
    assert job is not None
    assert job.status is Status.CANCELLED
    for claim in claims:
        assert not await store.append(claim, 0, ["1"])
        assert not await store.finish(claim, Status.COMPLETED, 0, ["1"])
    assert await store.claim(W, 1) == []
    assert (await found(store)).status is Status.CANCELLED


async def test_cancel_of_an_ended_job_changes_nothing(store: JobStore) -> None:
    claim = await running(store)
    await store.finish(claim, Status.COMPLETED)
    before = await found(store)

    assert await store.cancel("a") == before
    assert await store.cancel("unknown") is None


async def test_purge_cancels_only_what_waits(store: JobStore) -> None:
    await running(store, "running")
    await submit(store, "a", "b")

    assert sorted(await store.purge()) == ["a", "b"]
    assert (await found(store, "running")).status is Status.IN_PROGRESS
    assert (await found(store, "a")).status is Status.CANCELLED
    assert await store.purge() == []


@pytest.mark.parametrize("status", [Status.FAILED, Status.TIMED_OUT])
async def test_retry_of_a_failed_job_queues_it_again(store: JobStore, clock: Clock, status: Status) -> None:
    claim = await running(store)
    await store.finish(claim, status, 0, ["1"], "why")
    await store.take("a")
    await submit(store, "b")
    clock.now += 10
    job, again = await store.retry("a", 100)

    assert again
    assert job is not None
    assert (job.status, job.retries, job.error, job.item_count, job.delivered) == (Status.IN_QUEUE, 1, None, 0, 0)
    assert (job.started_at, job.ended_at, job.queued_at) == (None, None, clock.now)
    claims = await store.claim(W, 9)
    assert [(claim.id, claim.attempt) for claim in claims] == [("b", 1), ("a", 2)], "it queues again"
    assert not await store.finish(claim, Status.COMPLETED), "the first run has nothing to say any more"


async def test_retry_of_other_jobs_is_refused(store: JobStore) -> None:
    assert await store.retry("a", 1) == (None, False)
    claim = await running(store)
    assert await store.retry("a", 1) == (await found(store), False)
    await store.finish(claim, Status.FAILED)
    await submit(store, "b")
    with pytest.raises(QueueFullError):
        await store.retry("a", 1)


async def test_progress_differs_after_each_change(store: JobStore) -> None:
    await submit(store, "a")
    seen = [await store.progress(["a", "b"])]
    (claim,) = await store.claim(W, 1)
    seen.append(await store.progress(["a"]))
    await store.append(claim, 0, ["1"])
    seen.append(await store.progress(["a"]))

    assert [list(progress) for progress in seen] == [["a"]] * 3
    assert len({progress["a"] for progress in seen}) == 3


async def test_store_serves_many_concurrent_calls(store: JobStore) -> None:
    await asyncio.gather(*(submit(store, f"j{i}") for i in range(60)))
    jobs = await asyncio.gather(*(store.get(f"j{i}") for i in range(60)))

    assert all(jobs)
