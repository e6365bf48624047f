"""What the tests of the runner share: a runner on the fake engine, and its client's side."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.jobs.fake_engine import FakeEngine
from gptoss_bento.jobs.input import Envelope, Policy
from gptoss_bento.jobs.runner import Runner, running_jobs
from gptoss_bento.state.job import Job, Status
from tests.waiting import HANG_S

POLICY = Policy(600_000, 86_400_000)
PROMPT = {"prompt": "one two three", "sampling_params": {"max_tokens": 3}}
STREAM = {**PROMPT, "stream": True, "sampling_params": {"max_tokens": 60}}


@asynccontextmanager
async def jobs_on(fake: FakeEngine | None, url: str, **settings: Any) -> AsyncIterator[Runner]:
    async with running_jobs(ServerSettings(job_store_url=url, **settings), Path("unused")) as runner:
        if fake:
            runner.attach(fake.engine())
        yield runner


async def submit(runner: Runner, given: dict[str, Any], policy: Policy = POLICY, webhook: str | None = None) -> str:
    return (await runner.submit(Envelope(given, policy, webhook), sync=False)).id


async def ended(runner: Runner, job_id: str, wait_s: float = HANG_S) -> tuple[Job, list[Any]]:
    job, items = await runner.ended(job_id, wait_s)
    assert job is not None
    return job, [json.loads(item) for item in items]


async def stays() -> bool:
    return False


async def take(runner: Runner, job_id: str, wait_s: float = HANG_S) -> tuple[Status, list[Any]]:
    job, items = await runner.stream(job_id, wait_s, stays)
    assert job is not None
    return job.status, [json.loads(item) for item in items]
