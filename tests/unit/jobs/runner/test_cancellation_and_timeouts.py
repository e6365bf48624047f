"""Jobs that are cancelled, purged, or over their time."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from gptoss_bento.jobs import runner as runner_module
from gptoss_bento.jobs.fake_engine import FakeEngine
from gptoss_bento.jobs.input import Policy
from gptoss_bento.jobs.runner import Runner
from gptoss_bento.state.job import Status
from tests.unit.jobs.runner.support import PROMPT, STREAM, ended, jobs_on, submit
from tests.waiting import HANG_S, until


@pytest.mark.parametrize("given", [PROMPT, STREAM])
async def test_cancel_aborts_the_generation_immediately(jobs: Runner, fake: FakeEngine, given: dict[str, Any]) -> None:
    fake.gate.clear()
    job_id = await submit(jobs, given)
    await until(lambda: fake.running)
    job = await jobs.cancel(job_id)

    assert job is not None
    assert job.status is Status.CANCELLED
    await until(lambda: fake.aborted == 1 and not jobs._runs)
    assert (await ended(jobs, job_id))[0].status is Status.CANCELLED


async def test_cancel_right_after_acceptance_holds(jobs: Runner, fake: FakeEngine) -> None:
    fake.gate.clear()  # or a slow store lets a job complete before it is cancelled
    ids = []
    for i in range(30):
        job_id = await submit(jobs, STREAM)
        for _ in range(i % 6):
            await asyncio.sleep(0)
        ids.append(job_id)
        await jobs.cancel(job_id)
    await until(lambda: not jobs._runs and not fake.running)

    assert {(await ended(jobs, job_id))[0].status for job_id in ids} == {Status.CANCELLED}


async def test_cancel_is_seen_by_a_client_that_waits(
    fake: FakeEngine, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a notification: nothing looks into the store before the test is over."""
    monkeypatch.setattr(runner_module, "POLL_INTERVAL_S", 2 * HANG_S)
    fake.gate.clear()
    async with jobs_on(fake, store_url) as jobs:
        job_id = await submit(jobs, PROMPT)
        waiter = asyncio.create_task(jobs.ended(job_id, 2 * HANG_S))
        await asyncio.sleep(0.05)
        await jobs.cancel(job_id)
        async with asyncio.timeout(HANG_S):
            job, _ = await waiter
    assert job is not None
    assert job.status is Status.CANCELLED


async def test_purge_leaves_what_runs(fake: FakeEngine, store_url: str) -> None:
    fake.gate.clear()
    async with jobs_on(fake, store_url, max_concurrency=1) as jobs:
        first, *others = [await submit(jobs, PROMPT) for _ in range(4)]
        await until(lambda: fake.running)
        assert await jobs.purge() == 3
        fake.gate.set()
        assert (await ended(jobs, first))[0].status is Status.COMPLETED
        assert {(await ended(jobs, job_id))[0].status for job_id in others} == {Status.CANCELLED}


async def test_execution_timeout_ends_a_run_and_allows_a_retry(jobs: Runner, fake: FakeEngine) -> None:
    fake.gate.clear()
    job_id = await submit(jobs, PROMPT, Policy(1000, 86_400_000))
    job, _ = await ended(jobs, job_id)

    assert job.status is Status.TIMED_OUT
    assert job.error == "The job ran longer than policy.executionTimeout, 1000 ms."
    assert fake.aborted == 1
    fake.gate.set()
    job_, again = await jobs.retry(job_id)
    assert again
    assert job_ is not None
    assert job_.retries == 1
    assert (await ended(jobs, job_id))[0].status is Status.COMPLETED


def _runs_or_is_over(fake: FakeEngine, over: asyncio.Task[Any]) -> bool:
    return bool(fake.running) or over.done()


async def runs_with_a_short_life(jobs: Runner, fake: FakeEngine) -> str:
    """A job that runs and whose ttl is so short as this machine allows: on a slow one it may be over before that."""
    for ttl_ms in (1500, 6000, 24_000, 96_000):
        job_id = await submit(jobs, PROMPT, Policy(600_000, ttl_ms))
        over = asyncio.create_task(jobs.ended(job_id, HANG_S))
        await until(partial(_runs_or_is_over, fake, over))
        over.cancel()
        if fake.running:
            return job_id
    raise AssertionError("no job began within its ttl")


async def test_ttl_ends_a_job_which_is_then_not_found(jobs: Runner, fake: FakeEngine) -> None:
    fake.gate.clear()
    job_id = await runs_with_a_short_life(jobs, fake)

    assert await jobs.ended(job_id, HANG_S) == (None, [])
    await until(lambda: fake.aborted == 1)
