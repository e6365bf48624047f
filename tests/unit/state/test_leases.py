"""What happens to the jobs of a worker that dies, stops or loses its lease."""

from __future__ import annotations

from collections.abc import Callable

from gptoss_bento.state.job import Claim, Status
from gptoss_bento.state.store import JobStore
from gptoss_bento.state.worker_identity import WorkerIdentity
from tests.stores import Clock
from tests.unit.state.stored import W, found, running, submit

WORKER = WorkerIdentity(W, "here", 1, 0.5)
NO_PROCESS_IS_GONE: Callable[[WorkerIdentity], bool] = lambda _: False  # noqa: E731


async def running_again(store: JobStore) -> Claim:
    """The job `a`, submitted if it is not there yet."""
    if await store.get("a") is None:
        await submit(store, "a")
    (claim,) = await store.claim(W, 1)
    return claim


async def test_lease_that_expires_requeues_the_workers_job_once(store: JobStore, clock: Clock) -> None:
    await store.renew_lease(WORKER)
    first = await running(store)
    await store.append(first, 0, ["1"])
    assert await store.recover(1000, NO_PROCESS_IS_GONE) == []
    clock.now += 1001

    assert await store.recover(1000, NO_PROCESS_IS_GONE) == ["a"]
    job = await found(store)
    assert (job.status, job.retries, job.item_count) == (Status.IN_QUEUE, 1, 0)
    assert not await store.finish(first, Status.COMPLETED, 1), "a worker that was only slow ends nothing"
    (second,) = await store.claim("other", 1)
    assert await store.recover(1000, NO_PROCESS_IS_GONE) == ["a"], "it never said that it lives"
    job = await found(store)
    assert (job.status, job.error) == (Status.FAILED, "The server stopped twice while the job ran.")
    assert not await store.finish(second, Status.COMPLETED)


async def test_lease_that_expires_fails_a_job_whose_output_was_streamed(store: JobStore) -> None:
    claim = await running(store)
    await store.append(claim, 0, ["1"])
    await store.take("a")

    assert await store.recover(1000, NO_PROCESS_IS_GONE) == ["a"]
    job = await found(store)
    assert job.status is Status.FAILED
    assert "streamed" in str(job.error)


async def test_lease_of_a_process_that_is_gone_ends_early(store: JobStore) -> None:
    await store.renew_lease(WORKER)
    await store.renew_lease(WORKER)
    await running(store)

    assert await store.recover(1000, lambda worker: worker == WORKER) == ["a"]


async def test_heartbeat_keeps_a_workers_jobs(store: JobStore, clock: Clock) -> None:
    await store.renew_lease(WORKER)
    claim = await running(store)
    clock.now += 900
    await store.renew_lease(WORKER)
    clock.now += 900

    assert await store.recover(1000, NO_PROCESS_IS_GONE) == []
    assert await store.owned([claim]) == {"a"}


async def test_lease_that_is_released_requeues_the_workers_jobs(store: JobStore) -> None:
    await store.renew_lease(WORKER)
    claim = await running(store)
    assert await store.interrupt(claim) == ["a"]
    assert await store.interrupt(claim) == []
    await store.release_lease(W)

    assert (await found(store)).status is Status.IN_QUEUE


async def test_requeued_job_may_be_interrupted_once_more(store: JobStore) -> None:
    await store.renew_lease(WORKER)
    for _ in range(3):
        assert await store.interrupt(await running_again(store), counts=False) == ["a"]
        assert (await found(store)).status is Status.IN_QUEUE
    assert await store.interrupt(await running_again(store)) == ["a"]
    assert (await found(store)).status is Status.IN_QUEUE
    assert await store.interrupt(await running_again(store)) == ["a"]
    assert (await found(store)).status is Status.FAILED


async def test_requeued_job_whose_output_was_streamed_fails(store: JobStore) -> None:
    claim = await running_again(store)
    await store.append(claim, 0, ["1"])
    await store.take("a")

    await store.interrupt(claim, counts=False)
    assert (await found(store)).status is Status.FAILED
