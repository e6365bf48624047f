"""Several workers on one store, of one service and of two."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gptoss_bento.background import heartbeat
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.jobs import runner as runner_module
from gptoss_bento.jobs.fake_engine import FakeEngine
from gptoss_bento.jobs.runner import Runner, running_jobs
from gptoss_bento.state.job import Status
from gptoss_bento.workers.worker_group import Stage, WorkerGroup, make_shared_folder
from tests.unit.jobs.runner.support import PROMPT, STREAM, ended, jobs_on, submit, take
from tests.waiting import HANG_S, until


async def test_workers_of_two_services_share_a_store(store_url: str) -> None:
    one, other = FakeEngine(delay_s=0.1), FakeEngine(delay_s=0.1)
    async with (
        jobs_on(one, store_url, max_concurrency=2) as first,
        jobs_on(other, store_url, max_concurrency=2) as second,
    ):
        ids = [await submit(first, PROMPT) for _ in range(20)]
        for job_id in ids:
            assert (await ended(second, job_id))[0].status is Status.COMPLETED
    assert one.requests
    assert other.requests
    assert len(one.requests) + len(other.requests) == 20, "none ran twice"


async def test_cancel_in_one_process_aborts_in_the_other(fake: FakeEngine, store_url: str) -> None:
    fake.gate.clear()
    async with jobs_on(fake, store_url) as busy, jobs_on(None, store_url) as idle:
        job_id = await submit(idle, STREAM)
        await until(lambda: fake.running)
        await idle.cancel(job_id)
        await until(lambda: fake.aborted == 1 and not busy._runs)
        assert (await ended(busy, job_id))[0].status is Status.CANCELLED


@pytest.fixture
def group(tmp_path_factory: pytest.TempPathFactory) -> list[WorkerGroup]:
    """Two workers; here in one process."""
    folder = tmp_path_factory.mktemp("t") / "group"
    make_shared_folder(folder, 2)
    made = [WorkerGroup(index, 2, folder) for index in range(2)]
    for member in made:
        member.enter(os.getpid())
        member.reach(Stage.READY)
    return made


@asynccontextmanager
async def runners_on(
    fakes: list[FakeEngine], group: list[WorkerGroup], url: str, **settings: Any
) -> AsyncIterator[list[Runner]]:
    async with AsyncExitStack() as stack:
        runners = []
        for fake, member in zip(fakes, group, strict=True):
            limits = ServerSettings(job_store_url=url, **settings)
            runners.append(await stack.enter_async_context(running_jobs(limits, Path("unused"), member)))
            runners[-1].attach(fake.engine())
        yield runners


async def test_workers_share_the_concurrency_limit(group: list[WorkerGroup], store_url: str) -> None:
    fakes = [FakeEngine(), FakeEngine()]
    for fake in fakes:
        fake.gate.clear()
    async with runners_on(fakes, group, store_url, max_concurrency=3) as runners:
        ids = [await submit(runners[0], PROMPT) for _ in range(5)]
        await until(lambda: [fake.running for fake in fakes] == [2, 1])
        await asyncio.sleep(0.05)
        assert [fake.running for fake in fakes] == [2, 1]
        assert (await runners[1].health())["workers"] == {
            **dict.fromkeys(("idle", "initializing", "throttled", "unhealthy"), 0),
            "ready": 1,
            "running": 1,
        }
        for fake in fakes:
            fake.gate.set()
        assert {(await ended(runners[1], job_id))[0].status for job_id in ids} == {Status.COMPLETED}
    assert sum(len(fake.requests) for fake in fakes) == 5


async def test_notification_from_another_worker_is_received_immediately(
    group: list[WorkerGroup], store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "POLL_INTERVAL_S", 2 * HANG_S)
    fakes = [FakeEngine(), FakeEngine()]
    fakes[0].gate.clear()
    async with runners_on(fakes, group, store_url, max_concurrency=1) as runners:
        async with asyncio.timeout(HANG_S):
            job_id = await submit(runners[1], STREAM)  # which has no share
            await until(lambda: fakes[0].running)
            taken = asyncio.create_task(take(runners[1], job_id, 2 * HANG_S))
            await asyncio.sleep(0.02)
            fakes[0].gate.set()
            assert (await taken)[1]
            await ended(runners[1], job_id, 2 * HANG_S)

            fakes[0].gate.clear()
            cancelled = await submit(runners[1], STREAM)
            await until(lambda: fakes[0].running)
            await runners[1].cancel(cancelled)
            await until(lambda: fakes[0].aborted == 1 and not runners[0]._runs)


async def test_shutdown_of_one_worker_leaves_its_jobs_to_the_next_start(
    group: list[WorkerGroup], store_url: str
) -> None:
    fakes = [FakeEngine(), FakeEngine()]
    fakes[0].gate.clear()
    async with runners_on(fakes, group, store_url, max_concurrency=1) as runners:
        job_id = await submit(runners[0], PROMPT)
        await until(lambda: fakes[0].running)
        runners[1]._concurrency = 1  # it could
        group[0].reach(Stage.STOPPING)
        await runners[0].stop()
        await asyncio.sleep(0.6)
        assert (await ended(runners[1], job_id, 0))[0].status is Status.IN_QUEUE


async def test_kill_of_one_worker_leaves_its_jobs_to_the_next_start(
    group: list[WorkerGroup], store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes = [FakeEngine(), FakeEngine()]
    fakes[0].gate.clear()
    async with runners_on(fakes, group, store_url, max_concurrency=1) as runners:  # the first one's
        job_id = await submit(runners[0], PROMPT)
        await until(lambda: fakes[0].running)
        monkeypatch.setattr(heartbeat, "is_gone", lambda worker: worker.worker_id == runners[0]._worker.worker_id)
        await runners[1]._send_heartbeat()
        job, _ = await ended(runners[1], job_id, 0)
        assert (job.status, job.retries) == (Status.IN_PROGRESS, 0)
