"""Webhooks of jobs that end."""

from __future__ import annotations

import asyncio
import json

import pytest

from gptoss_bento.http.json_body import EnvelopeError
from gptoss_bento.jobs.fake_engine import FakeEngine
from gptoss_bento.jobs.runner import Runner
from gptoss_bento.state.job import Status
from tests.unit.jobs.receiver import Receiver
from tests.unit.jobs.runner.support import PROMPT, ended, jobs_on, submit
from tests.waiting import until


@pytest.mark.parametrize("end", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
async def test_webhook_is_sent_at_each_kind_of_end(fake: FakeEngine, store_url: str, end: Status) -> None:
    given = {"prompt": ""} if end is Status.FAILED else PROMPT
    if end is Status.CANCELLED:
        fake.gate.clear()
    settings = {"webhook_allow_private": True, "webhook_retry_delay_ms": 1}
    async with Receiver([500, 200]).listening() as receiver, jobs_on(fake, store_url, **settings) as jobs:
        job_id = await submit(jobs, given, webhook=receiver.url)
        if end is Status.CANCELLED:
            await jobs.cancel(job_id)
        job, items = await ended(jobs, job_id)
        await until(lambda: len(receiver.bodies) == 2)
    assert job.status is end
    expected = json.loads(job.body([json.dumps(item) for item in items]))
    assert receiver.bodies == [expected, expected]


async def test_webhook_gives_up_after_retries(fake: FakeEngine, store_url: str) -> None:
    settings = {"webhook_allow_private": True, "webhook_retry_delay_ms": 1, "webhook_retries": 1}
    async with Receiver([500]).listening() as receiver, jobs_on(fake, store_url, **settings) as jobs:
        await submit(jobs, PROMPT, webhook=receiver.url)
        await until(lambda: len(receiver.bodies) == 2)
        await asyncio.sleep(0.2)
    assert len(receiver.bodies) == 2


async def test_webhook_to_a_private_address_is_refused(jobs: Runner) -> None:
    with pytest.raises(EnvelopeError, match="webhook must lead to a public address"):
        await submit(jobs, PROMPT, webhook="http://127.0.0.1/x")
