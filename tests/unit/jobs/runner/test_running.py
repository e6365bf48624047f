"""A job from its acceptance to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gptoss_bento.http.fields.served_model import ServedModel
from gptoss_bento.jobs import run as run_module
from gptoss_bento.jobs.fake_engine import ADAPTER, FakeEngine
from gptoss_bento.jobs.input import Envelope, Policy
from gptoss_bento.jobs.runner import Runner
from gptoss_bento.state.database import StoreUnavailableError
from gptoss_bento.state.job import Status
from tests.unit.jobs.runner.support import POLICY, PROMPT, ended, jobs_on, submit
from tests.waiting import until


async def test_job_runs_to_its_end(jobs: Runner, fake: FakeEngine) -> None:
    job_id = await submit(jobs, PROMPT)
    job, items = await ended(jobs, job_id)

    assert job.status is Status.COMPLETED
    assert job.worker_id
    assert items[0]["choices"][0]["tokens"] == [" one two three"]
    assert (items[0]["usage"]["input"], items[0]["usage"]["output"]) == (3, 3)
    assert fake.requests == [{"prompt": "one two three", "max_tokens": 3}]
    assert fake.request_ids == [job_id], "the engine's log names the job"


async def test_fields_of_a_job_are_checked_by_the_model_that_is_served(store_url: str) -> None:
    fake = FakeEngine(served_model=ServedModel(default_temperature=0))
    async with jobs_on(fake, store_url) as jobs:
        await ended(jobs, await submit(jobs, {**PROMPT, "sampling_params": {"n": 2}}))

    assert [(asked["n"], asked["top_k"]) for asked in fake.requests] == [(2, 1)]


async def test_job_can_choose_an_adapter(jobs: Runner, fake: FakeEngine) -> None:
    await ended(jobs, await submit(jobs, {**PROMPT, "model": ADAPTER}))
    await ended(jobs, await submit(jobs, {**PROMPT, "model": "nonsense"}))

    assert [request.get("model") for request in fake.requests] == [ADAPTER, None]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"input": {}}, "prompt, messages"),
        ({"prompt": "x", "sampling_params": {"temperature": -1}}, "temperature"),
        ({"openai_input": {"model": "nope", "messages": []}}, "The model `nope` does not exist."),
        ({"prompt": "x", "sampling_params": {"max_tokens": 5000}}, "max_tokens must leave room for the prompt"),
        ({"route": "/v1/nothing"}, "Not Found"),
    ],
)
async def test_job_with_a_wrong_input_fails(jobs: Runner, given: dict[str, Any], words: str) -> None:
    job, items = await ended(jobs, await submit(jobs, given))

    assert (job.status, items) == (Status.FAILED, [])
    assert job.refused
    assert words in str(job.error)


async def test_max_tokens_must_fit_beside_the_prompt(jobs: Runner, fake: FakeEngine) -> None:
    fake.answer = [b"done"]
    prompt = "word " * 1000  # its bytes alone leave it open; counted, it has 1000 tokens
    fits, _ = await ended(jobs, await submit(jobs, {"prompt": prompt, "sampling_params": {"max_tokens": 3096}}))
    job, _ = await ended(jobs, await submit(jobs, {"prompt": prompt, "sampling_params": {"max_tokens": 3097}}))

    assert fits.status is Status.COMPLETED
    assert job.status is Status.FAILED
    assert "1000 of the context's 4096 tokens" in str(job.error)
    assert "got 3097" in str(job.error)


async def test_internal_error_of_a_job_shows_no_stack_trace(jobs: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> AsyncIterator[tuple[str, bool]]:
        yield str(1 // 0), True

    monkeypatch.setattr(run_module, "items_of", broken)
    job, _ = await ended(jobs, await submit(jobs, PROMPT))

    assert (job.status, job.error) == (Status.FAILED, "The server could not run the job; its log says why.")
    assert not job.refused


async def test_concurrency_limit_holds(fake: FakeEngine, store_url: str) -> None:
    fake.gate.clear()
    async with jobs_on(fake, store_url, max_concurrency=3) as jobs:
        ids = [await submit(jobs, PROMPT) for _ in range(9)]
        await until(lambda: fake.running == 3)
        fake.gate.set()
        for job_id in ids:
            assert (await ended(jobs, job_id))[0].status is Status.COMPLETED
    assert fake.most_running == 3


async def test_job_that_finds_a_free_slot_starts_when_it_is_accepted(
    jobs: Runner, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await until(lambda: jobs._free_slots and not jobs._may_have_waiting)  # the queue has been polled once
    monkeypatch.setattr(jobs.store, "claim", None)
    monkeypatch.setattr(jobs.store, "output", None)
    fake.gate.clear()
    job = await jobs.submit(Envelope(PROMPT, POLICY), sync=True)
    assert job.status is Status.IN_PROGRESS
    waiting = asyncio.create_task(jobs.ended(job.id, 10))
    monkeypatch.undo()
    monkeypatch.setattr(jobs.store, "claim", None)
    fake.gate.set()
    found, items = await waiting

    assert found
    assert (found.status, len(items)) == (Status.COMPLETED, 1)


async def test_queue_is_first_in_first_out(fake: FakeEngine, store_url: str) -> None:
    async with jobs_on(None, store_url, max_concurrency=1) as jobs:
        first = await submit(jobs, PROMPT)
        jobs.attach(fake.engine())
        second = await submit(jobs, PROMPT)
        for job_id in (first, second):
            await ended(jobs, job_id)
    assert fake.request_ids == [first, second]


async def test_disconnect_during_acceptance_leaves_no_job_without_a_run(jobs: Runner, fake: FakeEngine) -> None:
    submitting = asyncio.create_task(submit(jobs, PROMPT))
    await asyncio.sleep(0)
    submitting.cancel()
    await until(lambda: fake.request_ids)
    job, _ = await ended(jobs, fake.request_ids[0])
    assert job.status is Status.COMPLETED


async def test_store_error_after_the_job_was_stored_still_runs_it(
    jobs: Runner, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_job = jobs.store.submit

    async def silently(*args: Any) -> Any:
        await store_job(*args)
        raise StoreUnavailableError("the connection broke")

    monkeypatch.setattr(jobs.store, "submit", silently)
    with pytest.raises(StoreUnavailableError):
        await submit(jobs, PROMPT)
    await until(lambda: fake.request_ids)
    job, _ = await ended(jobs, fake.request_ids[0])
    assert job.status is Status.COMPLETED


async def test_low_priority_waits_for_the_others(fake: FakeEngine, store_url: str) -> None:
    async with jobs_on(None, store_url, max_concurrency=1) as jobs:
        low = await submit(jobs, {"prompt": "low"}, Policy(600_000, 86_400_000, low_priority=True))
        await submit(jobs, {"prompt": "first"})
        await submit(jobs, {"prompt": "second"})
        jobs.attach(fake.engine())
        await ended(jobs, low)
    assert [request["prompt"] for request in fake.requests] == ["first", "second", "low"]


async def test_queue_waits_for_the_engine(fake: FakeEngine, store_url: str) -> None:
    async with jobs_on(None, store_url) as jobs:
        job_id = await submit(jobs, PROMPT)
        assert (await ended(jobs, job_id, 0.05))[0].status is Status.IN_QUEUE
        assert (await jobs.health())["workers"]["initializing"] == 1
        jobs.attach(fake.engine())
        assert (await ended(jobs, job_id))[0].status is Status.COMPLETED


async def test_health_counts_jobs_and_workers(jobs: Runner, fake: FakeEngine) -> None:
    idle = {"idle": 1, "initializing": 0, "ready": 1, "running": 0, "throttled": 0, "unhealthy": 0}
    await ended(jobs, await submit(jobs, PROMPT))
    await ended(jobs, await submit(jobs, {}))
    await until(lambda: not jobs._runs)
    assert await jobs.health() == {
        "jobs": {"completed": 1, "failed": 1, "inProgress": 0, "inQueue": 0, "retried": 0},
        "workers": idle,
    }
    fake.gate.clear()
    await submit(jobs, PROMPT)
    await until(lambda: fake.running)
    assert (await jobs.health())["workers"] == {**idle, "idle": 0, "running": 1}
    fake.gate.set()


async def test_runsync_result_is_kept_as_long_as_its_client_waits(jobs: Runner) -> None:
    envelope = Envelope(PROMPT, POLICY)
    lives = []
    for sync, wait_ms in [(False, None), (True, None), (True, 300_000), (True, 1000)]:
        job = await jobs.submit(envelope, sync=sync, wait_ms=wait_ms)
        done, _ = await ended(jobs, job.id)
        lives.append(done.expires_at - (done.ended_at or 0))
        assert done.id.startswith("sync-") is sync
    assert lives == [1_800_000, 60_000, 300_000, 60_000]
