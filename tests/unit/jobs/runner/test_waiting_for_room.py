"""Jobs of several generations, which wait until the engine has room for all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gptoss_bento.jobs.fake_engine import FakeEngine
from gptoss_bento.jobs.input import Policy
from gptoss_bento.jobs.runner import Runner
from gptoss_bento.state.job import Status
from tests.unit.jobs.runner.support import PROMPT, ended, jobs_on, submit
from tests.waiting import until


def several(prompt: str, n: int = 2) -> dict[str, Any]:
    asked = {"prompt": prompt, "n": n, "max_tokens": 3, "stream": True}
    return {"openai_route": "/v1/completions", "openai_input": asked}


@asynccontextmanager
async def one_in_the_engine(fake: FakeEngine, url: str) -> AsyncIterator[tuple[Runner, str]]:
    """A job fills all slots for jobs of several generations."""
    fake.gate.clear()
    async with jobs_on(fake, url, max_openai_requests=2) as jobs:
        job_id = await submit(jobs, several("first"))
        await until(lambda: fake.running)
        yield jobs, job_id


async def _engine_dies(jobs: Runner, fake: FakeEngine) -> None:
    fake.dead, fake.break_after = True, 0
    fake.gate.set()
    await until(lambda: not jobs.running)
    jobs.detach()


async def test_execution_timeout_excludes_waiting_for_room(fake: FakeEngine, store_url: str) -> None:
    async with one_in_the_engine(fake, store_url) as (jobs, first):
        patient = await submit(jobs, several("patient"), Policy(200, 86_400_000))
        assert (await ended(jobs, patient, 0.5))[0].status is Status.IN_PROGRESS
        await jobs.cancel(first)
        await until(lambda: patient in fake.request_ids)
        job, _ = await ended(jobs, patient)

    assert (job.status, job.error) == (
        Status.TIMED_OUT,
        "The job ran longer than policy.executionTimeout, 200 ms.",
    ), "once there was room"


async def test_ttl_includes_waiting_for_room(fake: FakeEngine, store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[Any] = []

    async def finish(*args: Any, **_: Any) -> None:
        ends.append((args[1], args[4]))

    async with one_in_the_engine(fake, store_url) as (jobs, _):
        monkeypatch.setattr(jobs.store, "expire", None)  # which would take the job away in the same moment
        monkeypatch.setattr(jobs.store, "finish", finish)
        await submit(jobs, several("late"), Policy(100, 300))
        await until(lambda: ends)
        await until(lambda: jobs.running == 1)
        monkeypatch.undo()

    assert ends == [(Status.TIMED_OUT, "The job's time to live (policy.ttl) was over before it ended.")]
    assert len(fake.requests) == 1


async def test_cancel_reaches_a_job_that_waits_for_room(fake: FakeEngine, store_url: str) -> None:
    async with one_in_the_engine(fake, store_url) as (jobs, first):
        waiting, last = await submit(jobs, several("waiting")), await submit(jobs, several("last"))
        await until(lambda: jobs.running == 3)
        await jobs.cancel(waiting)
        await until(lambda: jobs.running == 2)
        assert (await ended(jobs, waiting, 0))[0].status is Status.CANCELLED
        fake.gate.set()
        assert (await ended(jobs, first))[0].status is Status.COMPLETED
        assert (await ended(jobs, last))[0].status is Status.COMPLETED
    assert fake.request_ids == [first, last]


async def test_job_with_one_generation_does_not_wait_for_those_with_several(fake: FakeEngine, store_url: str) -> None:
    async with one_in_the_engine(fake, store_url) as (jobs, _):
        await submit(jobs, several("waiting"))
        single = await submit(jobs, PROMPT)
        await until(lambda: single in fake.request_ids)


async def test_shutdown_does_not_count_against_a_job_that_waits_for_room(fake: FakeEngine, store_url: str) -> None:
    async with one_in_the_engine(fake, store_url) as (jobs, first):
        waiting = await submit(jobs, several("waiting"))
        await until(lambda: jobs.running == 2)
        await jobs.cancel(first)
        await until(lambda: waiting in fake.request_ids)
        blocked = await submit(jobs, several("blocked"))
        await until(lambda: jobs.running == 2)
    fake.gate.set()
    async with jobs_on(fake, store_url) as jobs:
        for job_id in (waiting, blocked):
            job, _ = await ended(jobs, job_id)
            assert (job.status, job.retries) == (Status.COMPLETED, 1)


async def test_engine_failure_does_not_count_against_a_job_that_waits_for_room(
    fake: FakeEngine, store_url: str
) -> None:
    async with one_in_the_engine(fake, store_url) as (jobs, first):
        waiting = await submit(jobs, several("waiting"))
        await until(lambda: jobs.running == 2)
        await _engine_dies(jobs, fake)
        await jobs.cancel(first)
    assert waiting not in fake.request_ids
    fake.dead = False
    fake.gate.clear()
    async with jobs_on(fake, store_url) as jobs:
        await until(lambda: waiting in fake.request_ids)
        await _engine_dies(jobs, fake)
        job, _ = await ended(jobs, waiting, 0)
    assert (job.status, job.retries) == (Status.IN_QUEUE, 2), "the second time was the first that counts"
