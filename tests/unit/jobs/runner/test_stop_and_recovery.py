"""What becomes of running jobs when the worker, the engine or the store stops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from gptoss_bento.background import heartbeat
from gptoss_bento.background.heartbeat import LEASE_MS
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.jobs.fake_engine import FakeEngine
from gptoss_bento.jobs.runner import Runner
from gptoss_bento.jobs.webhooks import webhook_sender
from gptoss_bento.state.clock import now_ms
from gptoss_bento.state.database import StoreUnavailableError
from gptoss_bento.state.job import Claim, Status
from gptoss_bento.state.store import open_store
from gptoss_bento.state.worker_identity import WorkerIdentity
from tests.unit.jobs.runner.support import PROMPT, STREAM, ended, jobs_on, submit, take
from tests.waiting import HANG_S, until


async def test_shutdown_requeues_running_jobs(fake: FakeEngine, store_url: str) -> None:
    fake.gate.clear()
    async with jobs_on(fake, store_url) as jobs:
        job_id = await submit(jobs, STREAM)
        await until(lambda: fake.running)
    assert fake.aborted == 1
    fake.gate.set()
    async with jobs_on(fake, store_url) as jobs:
        job, items = await ended(jobs, job_id)
    assert (job.status, job.retries, len(items)) == (Status.COMPLETED, 1, 5)


async def test_shutdown_does_not_count_against_a_job(fake: FakeEngine, store_url: str) -> None:
    fake.gate.clear()
    job_id = ""
    for _ in range(3):
        async with jobs_on(fake, store_url) as jobs:
            job_id = job_id or await submit(jobs, STREAM)
            await until(lambda: fake.running)
    fake.gate.set()
    async with jobs_on(fake, store_url) as jobs:
        job, _ = await ended(jobs, job_id)
    assert (job.status, job.retries) == (Status.COMPLETED, 3)


async def test_shutdown_pause_finishes_what_runs_and_starts_nothing(jobs: Runner, fake: FakeEngine) -> None:
    fake.gate.clear()
    running = await submit(jobs, STREAM)
    await until(lambda: fake.running)
    jobs.pause()
    waiting = await submit(jobs, PROMPT)
    fake.gate.set()

    assert (await ended(jobs, running))[0].status is Status.COMPLETED
    assert (await ended(jobs, waiting, 0.6))[0].status is Status.IN_QUEUE
    assert jobs.running == 0


async def test_shutdown_pause_gives_back_a_job_that_is_being_claimed(
    jobs: Runner, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, claimed, held = jobs.store.claim, asyncio.Event(), asyncio.Event()

    async def slow(worker_id: str, limit: int) -> list[Claim]:
        if claims := await claim(worker_id, limit):
            claimed.set()
            await held.wait()
        return claims

    monkeypatch.setattr(jobs.store, "claim", slow)
    jobs._executor.is_paused = True
    waiting = await submit(jobs, PROMPT)
    jobs._executor.is_paused = False
    jobs._schedule_claim()
    await claimed.wait()
    jobs.pause()
    assert (await ended(jobs, waiting, 0))[0].status is Status.IN_PROGRESS
    held.set()

    async with asyncio.timeout(HANG_S):
        while (job := (await ended(jobs, waiting, 0))[0]).status is not Status.IN_QUEUE:  # noqa: ASYNC110  # in the store
            await asyncio.sleep(0.01)
    assert (job.retries, jobs.running, fake.running) == (0, 0, 0)


@pytest.mark.parametrize("how", ["stream", "whole"])
async def test_shutdown_pause_requeues_what_the_engine_aborts(fake: FakeEngine, store_url: str, how: str) -> None:
    fake.gate.clear()
    fake.break_after, fake.abort = 0, True
    async with jobs_on(fake, store_url) as jobs:
        job_id = await submit(jobs, STREAM if how == "stream" else PROMPT)
        await until(lambda: fake.running)
        jobs.pause()
        fake.gate.set()
        await until(lambda: not jobs.running)
        assert (await ended(jobs, job_id, 0))[0].status is Status.IN_QUEUE


@pytest.mark.parametrize("how", ["stream", "whole"])
async def test_abort_by_the_engine_never_completes_a_job(jobs: Runner, fake: FakeEngine, how: str) -> None:
    fake.abort = True
    job, _ = await ended(jobs, await submit(jobs, STREAM if how == "stream" else PROMPT))

    assert job.status is Status.FAILED
    assert job.error == "The engine aborted the generation."


async def test_shutdown_may_reach_the_engine_first(jobs: Runner, fake: FakeEngine) -> None:
    fake.abort = True
    job_id = await submit(jobs, PROMPT)
    await until(lambda: fake.requests)
    await asyncio.sleep(0.1)
    jobs.pause()
    await until(lambda: not jobs.running)

    assert (await ended(jobs, job_id, 0))[0].status is Status.IN_QUEUE


async def test_shutdown_does_not_count_against_a_job_that_just_failed(fake: FakeEngine, store_url: str) -> None:
    fake.abort = True
    job_id = ""
    for run in range(1, 4):
        async with jobs_on(fake, store_url) as jobs:
            job_id = job_id or await submit(jobs, PROMPT)
            await until(lambda: len(fake.requests) == run)  # noqa: B023
            await asyncio.sleep(0.1)
    fake.abort = False
    async with jobs_on(fake, store_url) as jobs:
        assert (await ended(jobs, job_id))[0].status is Status.COMPLETED


async def test_heartbeat_after_a_store_outage_does_not_end_leases_of_others(fake: FakeEngine, store_url: str) -> None:
    fake.gate.clear()
    identity = WorkerIdentity("other", "elsewhere", 1, 0.0)
    settings = ServerSettings(job_store_url=store_url)
    time_ms = now_ms()
    async with (
        jobs_on(fake, store_url) as busy,
        open_store(store_url, Path("unused"), lambda: time_ms) as store,
        webhook_sender(allow_private=False) as sender,
    ):
        await submit(busy, PROMPT)
        await until(lambda: fake.running)
        other = Runner(store, settings, sender, identity, lambda: time_ms)
        await other._send_heartbeat()
        time_ms += 20_000  # in which no worker reached the store; this worker is the first again
        await other._send_heartbeat()
        assert (await store.counts()).in_progress == 1

        for _ in range(5):  # in which the others could have said that they live
            time_ms += LEASE_MS // 5
            await other._send_heartbeat()
        assert (await store.counts()).in_progress == 0


async def _die(stack: AsyncExitStack, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left after kill -9: a store in which the worker runs its jobs and says nothing any more."""

    async def nothing(*_: Any, **__: Any) -> None:
        return None

    for name in ("interrupt", "release_lease", "finish", "append"):
        monkeypatch.setattr(runner.store, name, nothing)
    await stack.aclose()
    monkeypatch.setattr(heartbeat, "is_gone", lambda one: one.worker_id == runner._worker.worker_id)


@pytest.mark.parametrize("streamed", [False, True])
async def test_recovery_after_a_kill_reruns_jobs_unless_their_output_was_streamed(
    fake: FakeEngine, store_url: str, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    fake.delay_s = 0.1  # far from done when its worker dies, however slow the machine
    stack = AsyncExitStack()
    first = await stack.enter_async_context(jobs_on(fake, store_url, max_concurrency=1))
    running, waiting = await submit(first, STREAM), await submit(first, PROMPT)
    await until(lambda: fake.running)
    if streamed:
        assert (await take(first, running))[1]
    await _die(stack, first, monkeypatch)

    fake.delay_s = 0
    async with jobs_on(fake, store_url) as second:
        job, items = await ended(second, running)
        assert (await ended(second, waiting))[0].status is Status.COMPLETED
    if streamed:
        assert job.status is Status.FAILED
        assert "streamed" in str(job.error)
    else:
        assert (job.status, job.retries) == (Status.COMPLETED, 1)
        assert sum(len(item["choices"][0]["tokens"]) for item in items) == 60


async def test_engine_failure_requeues_running_jobs(fake: FakeEngine, store_url: str) -> None:
    fake.break_after = 0
    fake.gate.clear()
    async with jobs_on(fake, store_url) as jobs:
        job_id = await submit(jobs, STREAM)
        await until(lambda: fake.running)
        fake.dead = True
        fake.gate.set()
        await until(lambda: not jobs._runs)
        jobs.detach()
        job, _ = await ended(jobs, job_id, 0)
        assert (job.status, job.retries) == (Status.IN_QUEUE, 1)
        assert (await jobs.health())["workers"]["unhealthy"] == 1


async def test_store_outage_loses_no_output(jobs: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 0
    finish, append = jobs.store.finish, jobs.store.append

    def failing_twice(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def attempt(*args: Any, **options: Any) -> Any:
            nonlocal tries
            tries += 1
            if tries % 3:
                raise StoreUnavailableError("disk full")
            return await method(*args, **options)

        return attempt

    monkeypatch.setattr(jobs.store, "finish", failing_twice(finish))
    monkeypatch.setattr(jobs.store, "append", failing_twice(append))
    job, items = await ended(jobs, await submit(jobs, STREAM))

    assert job.status is Status.COMPLETED
    assert [len(item["choices"][0]["tokens"]) for item in items] == [1, 3, 9, 27, 20]


async def test_store_outage_does_not_end_the_claim_loop(
    fake: FakeEngine, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with jobs_on(fake, store_url) as jobs:
        claim = jobs.store.claim

        async def unavailable(*_: Any) -> Any:
            raise StoreUnavailableError("gone")

        monkeypatch.setattr(jobs.store, "claim", unavailable)
        job_id = await submit(jobs, PROMPT)
        await asyncio.sleep(0.05)
        monkeypatch.setattr(jobs.store, "claim", claim)
        assert (await ended(jobs, job_id))[0].status is Status.COMPLETED
