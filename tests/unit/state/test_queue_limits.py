"""Limits of the queue and of its owners, also when several workers accept jobs concurrently."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from gptoss_bento.state.job import Status
from gptoss_bento.state.owner_lock import LOCK_TIMEOUT_MS
from gptoss_bento.state.queue_limits import TAKE_QUEUE_LOCK, QueueFullError
from gptoss_bento.state.store import JobStore, open_store
from tests.stores import Clock
from tests.unit.state.stored import NEW, W, submit
from tests.waiting import HANG_S, until


async def test_queue_that_is_full_refuses_a_job(store: JobStore) -> None:
    await store.submit(NEW, 1)
    with pytest.raises(QueueFullError, match="1 jobs wait"):
        await store.submit(replace(NEW, id="b"), 1)

    assert await store.get("b") is None
    await store.claim(W, 1)
    await store.submit(replace(NEW, id="c"), 1)


async def test_owner_limit_counts_unfinished_jobs(store: JobStore) -> None:
    for job_id, owner in (("a", "alice"), ("b", "alice"), ("c", "bob")):
        await store.submit(replace(NEW, id=job_id, owner=owner), 100, 2)
    (claim, *_) = await store.claim(W, 3)
    with pytest.raises(QueueFullError, match="This key may have 2 unfinished jobs"):
        await store.submit(replace(NEW, id="d", owner="alice"), 100, 2)

    assert (claim.id, claim.owner) == ("a", "alice")
    await store.finish(claim, Status.COMPLETED)
    await store.submit(replace(NEW, id="d", owner="alice"), 100, 2)


@pytest.fixture
async def workers(store_url: str, clock: Clock) -> AsyncIterator[tuple[JobStore, JobStore]]:
    """The same store as two worker processes have it open."""
    async with open_store(store_url, Path("unused"), clock) as one, open_store(store_url, Path("unused"), clock) as two:
        yield one, two


async def accepted(asked: Iterable[Coroutine[Any, Any, object]]) -> int:
    """How many of these came in; the others were refused."""
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(each, QueueFullError) for each in answers if isinstance(each, BaseException)), answers
    return sum(not isinstance(each, BaseException) for each in answers)


@pytest.mark.parametrize(("free", "in_progress"), [(None, 0), (W, 1)])
async def test_owner_limit_holds_for_concurrent_workers(
    workers: tuple[JobStore, JobStore], free: str | None, in_progress: int
) -> None:
    new = [replace(NEW, id=f"j{i}", owner="alice") for i in range(30)]
    assert await accepted(workers[i % 2].submit(job, 100, 1, free) for i, job in enumerate(new)) == 1
    counts = await workers[0].counts()
    assert (counts.in_queue, counts.in_progress) == (1 - in_progress, in_progress)


async def test_queue_limit_holds_for_concurrent_workers(
    workers: tuple[JobStore, JobStore],
) -> None:
    new = [replace(NEW, id=f"j{i}") for i in range(30)]
    assert await accepted(workers[i % 2].submit(job, 5) for i, job in enumerate(new)) == 5
    assert await workers[1].queue_length() == 5


@pytest.mark.parametrize(("most_waiting", "most_of_owner", "queued"), [(5, None, 5), (100, 1, 1)])
async def test_retry_keeps_to_both_limits_for_concurrent_workers(
    workers: tuple[JobStore, JobStore], most_waiting: int, most_of_owner: int | None, queued: int
) -> None:
    ids = [f"j{i}" for i in range(20)]
    await submit(workers[0], *ids, owner="alice")
    for claim in await workers[0].claim(W, len(ids)):
        await workers[0].finish(claim, Status.FAILED)
    asked = (workers[i % 2].retry(job_id, most_waiting, most_of_owner) for i, job_id in enumerate(ids))
    assert await accepted(asked) == queued
    assert await workers[1].queue_length() == queued


async def test_queue_lock_of_a_stopped_process_is_released_after_a_while(store: JobStore, store_url: str) -> None:
    """As a process that was stopped, or whose machine is gone without a word to the database."""
    if store_url.startswith("sqlite"):
        return  # waits for 10 s, and one that was stopped is on this machine
    still = await asyncpg.connect(store_url.replace("+asyncpg", ""))
    await still.execute("BEGIN")
    alone = str(TAKE_QUEUE_LOCK).replace(":owner", "$1").replace(f"'{LOCK_TIMEOUT_MS}'", "'2000'")
    await still.fetch(alone, "alice")
    alices = replace(NEW, owner="alice")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(store.submit(alices, 9, 1), 0.2)
    await store.submit(replace(NEW, id="b", owner="bob"), 9, 1)
    await asyncio.wait_for(store.submit(alices, 9, 1), HANG_S)
    await until(still.is_closed)  # the driver reads later that the server has closed it
