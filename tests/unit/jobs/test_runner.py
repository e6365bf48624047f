"""The life of jobs on a fake engine."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gptoss_bento.access.admission import Admission, RefusedError, key_rules
from gptoss_bento.access.key_store import KeyRing
from gptoss_bento.config.api_keys import Key, KeyLimits, digest, listed_keys
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.jobs import runner as runner_module
from gptoss_bento.jobs.fake_engine import ADAPTER, FakeEngine
from gptoss_bento.jobs.input import Envelope, Policy
from gptoss_bento.jobs.limits import JobLimits
from gptoss_bento.jobs.runner import Runner, running_jobs
from gptoss_bento.state.clock import now_ms
from gptoss_bento.state.database import StoreUnavailableError
from gptoss_bento.state.job import Job, Status
from gptoss_bento.state.store import open_store
from gptoss_bento.state.worker_identity import WorkerIdentity
from gptoss_bento.strict_json import EnvelopeError
from gptoss_bento.workers.worker_group import Stage, Team, make_folder
from tests.unit.jobs.receiver import Receiver

POLICY = Policy(600_000, 86_400_000)
PROMPT = {"prompt": "one two three", "sampling_params": {"max_tokens": 3}}
STREAM = {**PROMPT, "stream": True, "sampling_params": {"max_tokens": 60}}


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the background does every second it does often here, so that no test has to wait for it."""
    for name in ("_LOOK_S", "_EXPIRE_S", "_WEBHOOK_S"):
        monkeypatch.setattr(runner_module, name, 0.05)


@pytest.fixture
def fake() -> FakeEngine:
    return FakeEngine()


@asynccontextmanager
async def jobs_on(fake: FakeEngine | None, url: str, **settings: Any) -> AsyncIterator[Runner]:
    async with running_jobs(ServerSettings(job_store_url=url, **settings), Path("unused")) as runner:
        if fake:
            runner.attach(fake.engine())
        yield runner


@pytest.fixture
async def jobs(fake: FakeEngine, store_url: str) -> AsyncIterator[Runner]:
    async with jobs_on(fake, store_url) as runner:
        yield runner


async def submit(runner: Runner, given: dict[str, Any], policy: Policy = POLICY, webhook: str | None = None) -> str:
    return (await runner.submit(Envelope(given, policy, webhook), sync=False)).id


async def ended(runner: Runner, job_id: str, wait_s: float = 10) -> tuple[Job, list[Any]]:
    job, items = await runner.ended(job_id, wait_s)
    assert job is not None
    return job, [json.loads(item) for item in items]


async def until(condition: Callable[[], Any], limit_s: float = 5) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110  # any condition
            await asyncio.sleep(0.005)


async def stays() -> bool:
    return False


async def take(runner: Runner, job_id: str, wait_s: float = 5) -> tuple[Status, list[Any]]:
    job, items = await runner.stream(job_id, wait_s, stays)
    assert job is not None
    return job.status, [json.loads(item) for item in items]


# running


async def test_a_job_runs_to_its_end(jobs: Runner, fake: FakeEngine) -> None:
    job_id = await submit(jobs, PROMPT)
    job, items = await ended(jobs, job_id)

    assert job.status is Status.COMPLETED
    assert job.worker_id
    assert items[0]["choices"][0]["tokens"] == [" one two three"]
    assert (items[0]["usage"]["input"], items[0]["usage"]["output"]) == (3, 3)
    assert fake.requests == [{"prompt": "one two three", "max_tokens": 3}]
    assert fake.request_ids == [job_id], "the engine's log names the job"


@pytest.mark.parametrize("per_event", [1, 7, 60])
async def test_a_stream_has_the_schedule_whatever_the_engine_sends(
    jobs: Runner, fake: FakeEngine, per_event: int
) -> None:
    fake.per_event = per_event
    _, items = await ended(jobs, await submit(jobs, STREAM))

    assert [len(item["choices"][0]["tokens"]) for item in items] == [1, 3, 9, 27, 20]
    assert [item["usage"]["output"] for item in items] == [1, 4, 13, 40, 60]
    assert {item["usage"]["input"] for item in items} == {3}
    assert items[0]["choices"][0]["tokens"] + items[1]["choices"][0]["tokens"] == [" one", " two", " three", " one"]


@pytest.mark.parametrize("per_event", [1, 4, 99])
async def test_a_chat_streams_its_final_channel_alone(jobs: Runner, fake: FakeEngine, per_event: int) -> None:
    fake.answer, fake.per_event = [b"Gr", b"\xc3", b"\xbc", b"ezi"], per_event
    given = {"messages": [{"role": "user", "content": "x"}], "stream": True, "batch_size_growth_factor": 1}
    _, items = await ended(jobs, await submit(jobs, {**given, "max_batch_size": 2}))

    assert [item["choices"][0]["tokens"] for item in items] == [["Gr", ""], ["ü", "ezi"], [""]]
    assert items[0]["choices"][0]["reasoning"] == "I think"
    assert [item["usage"]["output"] for item in items] == [13, 15, 16]


async def test_the_openai_format_joins_to_the_engines_body(fake: FakeEngine, store_url: str) -> None:
    async with jobs_on(fake, store_url, native_output_format="openai") as jobs:
        _, items = await ended(jobs, await submit(jobs, STREAM))

    assert "".join(items).endswith("data: [DONE]\n\n")
    assert "".join(items).count("\n\n") == 61


async def test_an_adapter_can_be_chosen(jobs: Runner, fake: FakeEngine) -> None:
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
async def test_a_wrong_input_is_a_failed_job(jobs: Runner, given: dict[str, Any], words: str) -> None:
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


async def test_a_failure_in_the_midst_keeps_what_was_streamed(jobs: Runner, fake: FakeEngine) -> None:
    fake.break_after = 5
    job_id = await submit(jobs, STREAM)
    job, _ = await ended(jobs, job_id)

    assert (job.status, job.error, job.refused) == (Status.FAILED, "the engine stumbled", False)
    status, items = await take(jobs, job_id)
    assert status is Status.FAILED
    assert [len(item["choices"][0]["tokens"]) for item in items] == [1, 3]


async def test_a_fault_of_ours_is_no_stack_trace(jobs: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> AsyncIterator[tuple[str, bool]]:
        yield str(1 // 0), True

    monkeypatch.setattr(runner_module, "items_of", broken)
    job, _ = await ended(jobs, await submit(jobs, PROMPT))

    assert (job.status, job.error) == (Status.FAILED, "The server could not run the job; its log says why.")
    assert not job.refused


async def test_no_more_run_at_once_than_may(fake: FakeEngine, store_url: str) -> None:
    fake.gate.clear()
    async with jobs_on(fake, store_url, max_concurrency=3) as jobs:
        ids = [await submit(jobs, PROMPT) for _ in range(9)]
        await until(lambda: fake.running == 3)
        fake.gate.set()
        for job_id in ids:
            assert (await ended(jobs, job_id))[0].status is Status.COMPLETED
    assert fake.most_running == 3


async def test_a_job_that_finds_a_free_place_is_begun_when_it_is_accepted(
    jobs: Runner, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await until(lambda: jobs._free and not jobs._may_wait)  # the first look into the queue is over
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


async def test_nobody_overtakes_those_who_wait(fake: FakeEngine, store_url: str) -> None:
    async with jobs_on(None, store_url, max_concurrency=1) as jobs:
        first = await submit(jobs, PROMPT)
        jobs.attach(fake.engine())
        second = await submit(jobs, PROMPT)
        for job_id in (first, second):
            await ended(jobs, job_id)
    assert fake.request_ids == [first, second]


async def test_a_client_that_hangs_up_while_its_job_is_accepted_leaves_no_job_without_a_run(
    jobs: Runner, fake: FakeEngine
) -> None:
    submitting = asyncio.create_task(submit(jobs, PROMPT))
    await asyncio.sleep(0)
    submitting.cancel()
    await until(lambda: fake.request_ids)
    job, _ = await ended(jobs, fake.request_ids[0])
    assert job.status is Status.COMPLETED


async def test_a_job_that_the_store_took_without_saying_so_is_run(
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


async def test_jobs_wait_for_the_engine(fake: FakeEngine, store_url: str) -> None:
    async with jobs_on(None, store_url) as jobs:
        job_id = await submit(jobs, PROMPT)
        assert (await ended(jobs, job_id, 0.05))[0].status is Status.IN_QUEUE
        assert (await jobs.health())["workers"]["initializing"] == 1
        jobs.attach(fake.engine())
        assert (await ended(jobs, job_id))[0].status is Status.COMPLETED


# streaming out


async def test_items_are_handed_out_once_as_they_come(jobs: Runner, fake: FakeEngine) -> None:
    fake.delay_s = 0.002
    job_id = await submit(jobs, STREAM)
    status, items, polls = Status.IN_QUEUE, [], 0
    while not status.is_terminal:
        status, new = await take(jobs, job_id)
        items += new
        polls += 1

    assert polls > 1
    assert sum(len(item["choices"][0]["tokens"]) for item in items) == 60
    assert await take(jobs, job_id) == (Status.COMPLETED, [])
    assert (await ended(jobs, job_id))[1] == items


async def test_a_client_that_left_takes_nothing(jobs: Runner) -> None:
    async def left() -> bool:
        return True

    job_id = await submit(jobs, PROMPT)
    await ended(jobs, job_id)
    assert (await jobs.stream(job_id, 0, left))[1] == []
    assert len((await take(jobs, job_id))[1]) == 1


async def test_a_poll_is_held_no_longer_than_asked(jobs: Runner, fake: FakeEngine) -> None:
    fake.gate.clear()
    job_id = await submit(jobs, STREAM)
    await until(lambda: fake.running)

    assert await take(jobs, job_id, 0.02) == (Status.IN_PROGRESS, [])
    fake.gate.set()


# cancelling


@pytest.mark.parametrize("given", [PROMPT, STREAM])
async def test_cancelling_aborts_the_generation_at_once(jobs: Runner, fake: FakeEngine, given: dict[str, Any]) -> None:
    fake.gate.clear()
    job_id = await submit(jobs, given)
    await until(lambda: fake.running)
    job = await jobs.cancel(job_id)

    assert job is not None
    assert job.status is Status.CANCELLED
    await until(lambda: fake.aborted == 1 and not jobs._runs, 1)
    assert (await ended(jobs, job_id))[0].status is Status.CANCELLED


async def test_a_job_cancelled_in_the_instant_it_was_accepted_stays_so(jobs: Runner, fake: FakeEngine) -> None:
    fake.delay_s = 0.001
    ids = []
    for i in range(30):
        job_id = await submit(jobs, STREAM)
        for _ in range(i % 6):
            await asyncio.sleep(0)
        ids.append(job_id)
        await jobs.cancel(job_id)
    await until(lambda: not jobs._runs and not fake.running)

    assert {(await ended(jobs, job_id))[0].status for job_id in ids} == {Status.CANCELLED}


async def test_a_waiter_hears_of_a_cancel(jobs: Runner, fake: FakeEngine) -> None:
    fake.gate.clear()
    job_id = await submit(jobs, PROMPT)
    waiter = asyncio.create_task(jobs.ended(job_id, 10))
    await asyncio.sleep(0.05)
    await jobs.cancel(job_id)
    async with asyncio.timeout(0.4):
        job, _ = await waiter
    assert job is not None
    assert job.status is Status.CANCELLED


async def test_purging_leaves_what_runs(fake: FakeEngine, store_url: str) -> None:
    fake.gate.clear()
    async with jobs_on(fake, store_url, max_concurrency=1) as jobs:
        first, *others = [await submit(jobs, PROMPT) for _ in range(4)]
        await until(lambda: fake.running)
        assert await jobs.purge() == 3
        fake.gate.set()
        assert (await ended(jobs, first))[0].status is Status.COMPLETED
        assert {(await ended(jobs, job_id))[0].status for job_id in others} == {Status.CANCELLED}


# time


async def test_a_run_over_its_time_is_timed_out_and_can_be_run_again(jobs: Runner, fake: FakeEngine) -> None:
    fake.gate.clear()
    job_id = await submit(jobs, PROMPT, Policy(50, 86_400_000))
    job, _ = await ended(jobs, job_id)

    assert job.status is Status.TIMED_OUT
    assert job.error == "The job ran longer than policy.executionTimeout, 50 ms."
    assert fake.aborted == 1
    fake.gate.set()
    job_, again = await jobs.retry(job_id)
    assert again
    assert job_ is not None
    assert job_.retries == 1
    assert (await ended(jobs, job_id))[0].status is Status.COMPLETED


async def test_a_job_over_its_time_to_live_is_stopped_and_forgotten(jobs: Runner, fake: FakeEngine) -> None:
    fake.gate.clear()
    job_id = await submit(jobs, PROMPT, Policy(600_000, 500))
    await until(lambda: fake.running)

    assert await jobs.ended(job_id, 5) == (None, [])
    await until(lambda: fake.aborted == 1)


# waiting for room in the engine


def several(prompt: str, n: int = 2) -> dict[str, Any]:
    asked = {"prompt": prompt, "n": n, "max_tokens": 3, "stream": True}
    return {"openai_route": "/v1/completions", "openai_input": asked}


@asynccontextmanager
async def one_in_the_engine(fake: FakeEngine, url: str) -> AsyncIterator[tuple[Runner, str]]:
    """A job fills all places for jobs of several generations."""
    fake.gate.clear()
    async with jobs_on(fake, url, max_openai_requests=2) as jobs:
        job_id = await submit(jobs, several("first"))
        await until(lambda: fake.running)
        yield jobs, job_id


async def test_the_time_in_which_a_job_waits_for_room_is_no_execution_time(fake: FakeEngine, store_url: str) -> None:
    async with one_in_the_engine(fake, store_url) as (jobs, first):
        patient = await submit(jobs, several("patient"), Policy(200, 86_400_000))
        assert (await ended(jobs, patient, 0.5))[0].status is Status.IN_PROGRESS
        await jobs.cancel(first)
        await until(lambda: patient in fake.request_ids)
        assert (await ended(jobs, patient, 0.05))[0].status is Status.IN_PROGRESS
        job, _ = await ended(jobs, patient)

    assert (job.status, job.error) == (
        Status.TIMED_OUT,
        "The job ran longer than policy.executionTimeout, 200 ms.",
    ), "once there was room"


async def test_a_job_that_waits_for_room_has_its_time_to_live(
    fake: FakeEngine, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
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


async def test_a_job_that_waits_for_room_can_be_cancelled(fake: FakeEngine, store_url: str) -> None:
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


async def test_a_job_with_one_generation_does_not_wait_for_those_with_several(fake: FakeEngine, store_url: str) -> None:
    async with one_in_the_engine(fake, store_url) as (jobs, _):
        await submit(jobs, several("waiting"))
        single = await submit(jobs, PROMPT)
        await until(lambda: single in fake.request_ids)


async def test_a_stop_does_not_count_against_a_job_that_waits_for_room(fake: FakeEngine, store_url: str) -> None:
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


async def test_the_death_of_the_engine_does_not_count_against_a_job_that_waits_for_room(
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


async def _engine_dies(jobs: Runner, fake: FakeEngine) -> None:
    fake.dead, fake.break_after = True, 0
    fake.gate.set()
    await until(lambda: not jobs.running)
    jobs.detach()


# death and recovery


async def test_a_stopped_runner_gives_its_job_back(fake: FakeEngine, store_url: str) -> None:
    fake.gate.clear()
    async with jobs_on(fake, store_url) as jobs:
        job_id = await submit(jobs, STREAM)
        await until(lambda: fake.running)
    assert fake.aborted == 1
    fake.gate.set()
    async with jobs_on(fake, store_url) as jobs:
        job, items = await ended(jobs, job_id)
    assert (job.status, job.retries, len(items)) == (Status.COMPLETED, 1, 5)


async def test_a_stop_does_not_count_against_a_job(fake: FakeEngine, store_url: str) -> None:
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


async def test_a_paused_runner_ends_what_runs_and_begins_nothing(jobs: Runner, fake: FakeEngine) -> None:
    fake.gate.clear()
    running = await submit(jobs, STREAM)
    await until(lambda: fake.running)
    jobs.pause()
    waiting = await submit(jobs, PROMPT)
    fake.gate.set()

    assert (await ended(jobs, running))[0].status is Status.COMPLETED
    assert (await ended(jobs, waiting, 0.6))[0].status is Status.IN_QUEUE
    assert jobs.running == 0


@pytest.mark.parametrize("how", ["stream", "whole"])
async def test_a_paused_runner_hands_back_what_the_engine_breaks_off(
    fake: FakeEngine, store_url: str, how: str
) -> None:
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
async def test_an_aborted_generation_is_never_completed(jobs: Runner, fake: FakeEngine, how: str) -> None:
    fake.abort = True
    job, _ = await ended(jobs, await submit(jobs, STREAM if how == "stream" else PROMPT))

    assert job.status is Status.FAILED
    assert job.error == "The engine aborted the generation."


async def test_the_engine_may_hear_of_a_stop_before_us(jobs: Runner, fake: FakeEngine) -> None:
    fake.abort = True
    job_id = await submit(jobs, PROMPT)
    await until(lambda: fake.requests)
    await asyncio.sleep(0.1)
    jobs.pause()
    await until(lambda: not jobs.running)

    assert (await ended(jobs, job_id, 0))[0].status is Status.IN_QUEUE


async def test_a_stop_does_not_count_against_a_job_whose_failure_is_in_doubt(fake: FakeEngine, store_url: str) -> None:
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


async def test_a_store_that_was_away_does_not_make_others_look_dead(fake: FakeEngine, store_url: str) -> None:
    fake.gate.clear()
    place = WorkerIdentity("other", "elsewhere", 1, 0.0)
    settings = ServerSettings(job_store_url=store_url)
    time_ms = now_ms()
    async with jobs_on(fake, store_url) as busy, open_store(store_url, Path("unused"), lambda: time_ms) as store:
        await submit(busy, PROMPT)
        await until(lambda: fake.running)
        other = Runner(store, settings, busy._sender, place, lambda: time_ms)
        await other._beat()
        time_ms += 20_000  # in which nobody reached the store; this worker is the first again
        await other._beat()
        assert (await store.counts()).in_progress == 1

        for _ in range(5):  # in which the others could have said that they live
            time_ms += runner_module.LEASE_MS // 5
            await other._beat()
        assert (await store.counts()).in_progress == 0


async def _die(stack: AsyncExitStack, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left after kill -9: a store in which the worker runs its jobs and says nothing any more."""

    async def nothing(*_: Any, **__: Any) -> None:
        return None

    for name in ("interrupt", "leave", "finish", "append"):
        monkeypatch.setattr(runner.store, name, nothing)
    await stack.aclose()
    monkeypatch.setattr(runner_module, "is_gone", lambda one: one.worker_id == runner._place.worker_id)


@pytest.mark.parametrize("streamed", [False, True])
async def test_after_a_kill_jobs_run_again_unless_somebody_saw_their_output(
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


async def test_an_engine_that_dies_takes_no_job_with_it(fake: FakeEngine, store_url: str) -> None:
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


async def test_two_runners_share_a_store(store_url: str) -> None:
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


async def test_a_cancel_in_one_process_aborts_in_the_other(fake: FakeEngine, store_url: str) -> None:
    fake.gate.clear()
    async with jobs_on(fake, store_url) as busy, jobs_on(None, store_url) as idle:
        job_id = await submit(idle, STREAM)
        await until(lambda: fake.running)
        await idle.cancel(job_id)
        await until(lambda: fake.aborted == 1 and not busy._runs, 2)
        assert (await ended(busy, job_id))[0].status is Status.CANCELLED


# several workers of one service


@pytest.fixture
def team(tmp_path_factory: pytest.TempPathFactory) -> list[Team]:
    """Two workers; here in one process."""
    folder = tmp_path_factory.mktemp("t") / "team"
    make_folder(folder, 2)
    made = [Team(index, 2, folder) for index in range(2)]
    for member in made:
        member.enter(os.getpid())
        member.reach(Stage.READY)
    return made


@asynccontextmanager
async def team_on(fakes: list[FakeEngine], team: list[Team], url: str, **settings: Any) -> AsyncIterator[list[Runner]]:
    async with AsyncExitStack() as stack:
        runners = []
        for fake, member in zip(fakes, team, strict=True):
            limits = ServerSettings(job_store_url=url, **settings)
            runners.append(await stack.enter_async_context(running_jobs(limits, Path("unused"), member)))
            runners[-1].attach(fake.engine())
        yield runners


async def test_all_workers_together_run_as_many_jobs_as_may(team: list[Team], store_url: str) -> None:
    fakes = [FakeEngine(), FakeEngine()]
    for fake in fakes:
        fake.gate.clear()
    async with team_on(fakes, team, store_url, max_concurrency=3) as runners:
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


async def test_news_from_another_worker_are_heard_at_once(
    team: list[Team], store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "_LOOK_S", 60)
    fakes = [FakeEngine(), FakeEngine()]
    fakes[0].gate.clear()
    async with team_on(fakes, team, store_url, max_concurrency=1) as runners:
        async with asyncio.timeout(5):
            job_id = await submit(runners[1], STREAM)  # which has no share of its own
            await until(lambda: fakes[0].running)
            taken = asyncio.create_task(take(runners[1], job_id, 60))
            await asyncio.sleep(0.02)
            fakes[0].gate.set()
            assert (await taken)[1]
            await ended(runners[1], job_id, 60)

            fakes[0].gate.clear()
            cancelled = await submit(runners[1], STREAM)
            await until(lambda: fakes[0].running)
            await runners[1].cancel(cancelled)
            await until(lambda: fakes[0].aborted == 1 and not runners[0]._runs)


async def test_what_an_ending_worker_gives_back_waits_for_the_next_start(team: list[Team], store_url: str) -> None:
    fakes = [FakeEngine(), FakeEngine()]
    fakes[0].gate.clear()
    async with team_on(fakes, team, store_url, max_concurrency=1) as runners:
        job_id = await submit(runners[0], PROMPT)
        await until(lambda: fakes[0].running)
        runners[1]._concurrency = 1  # it could
        team[0].reach(Stage.STOPPING)
        await runners[0].stop()
        await asyncio.sleep(0.6)
        assert (await ended(runners[1], job_id, 0))[0].status is Status.IN_QUEUE


async def test_the_jobs_of_a_killed_worker_are_left_to_the_next_start(
    team: list[Team], store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes = [FakeEngine(), FakeEngine()]
    fakes[0].gate.clear()
    async with team_on(fakes, team, store_url, max_concurrency=1) as runners:  # the first one's
        job_id = await submit(runners[0], PROMPT)
        await until(lambda: fakes[0].running)
        monkeypatch.setattr(runner_module, "is_gone", lambda place: place.worker_id == runners[0]._place.worker_id)
        await runners[1]._beat()
        job, _ = await ended(runners[1], job_id, 0)
        assert (job.status, job.retries) == (Status.IN_PROGRESS, 0)


async def test_output_survives_a_store_that_is_away_for_a_while(jobs: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
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


async def test_the_background_survives_a_store_that_is_away(
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


# webhooks and health


@pytest.mark.parametrize("end", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
async def test_the_client_hears_of_the_end(fake: FakeEngine, store_url: str, end: Status) -> None:
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


async def test_a_deaf_client_is_given_up(fake: FakeEngine, store_url: str) -> None:
    settings = {"webhook_allow_private": True, "webhook_retry_delay_ms": 1, "webhook_retries": 1}
    async with Receiver([500]).listening() as receiver, jobs_on(fake, store_url, **settings) as jobs:
        await submit(jobs, PROMPT, webhook=receiver.url)
        await until(lambda: len(receiver.bodies) == 2)
        await asyncio.sleep(0.2)
    assert len(receiver.bodies) == 2


async def test_a_private_webhook_is_refused(jobs: Runner) -> None:
    with pytest.raises(EnvelopeError, match="webhook must lead to a public address"):
        await submit(jobs, PROMPT, webhook="http://127.0.0.1/x")


async def test_health_counts(jobs: Runner, fake: FakeEngine) -> None:
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


async def test_the_result_of_runsync_is_kept_as_long_as_its_client_waits(jobs: Runner) -> None:
    envelope = Envelope(PROMPT, POLICY)
    lives = []
    for sync, wait_ms in [(False, None), (True, None), (True, 300_000), (True, 1000)]:
        job = await jobs.submit(envelope, sync=sync, wait_ms=wait_ms)
        done, _ = await ended(jobs, job.id)
        lives.append(done.expires_at - (done.ended_at or 0))
        assert done.id.startswith("sync-") is sync
    assert lives == [1_800_000, 60_000, 300_000, 60_000]


# keys


def alice(**limits: Any) -> tuple[Key, JobLimits]:
    key = Key("alice", (digest("s3cret"),), KeyLimits(**limits))
    return key, JobLimits(KeyRing([key]), Admission(clock=lambda: 1.0))


async def test_a_job_is_charged_to_the_key_it_came_with(fake: FakeEngine, tmp_path: Path) -> None:
    key, limits = alice(tokens_per_minute=100, max_tokens=5)
    async with running_jobs(ServerSettings(), tmp_path / "jobs.sqlite3", limits=limits) as runner:
        runner.attach(fake.engine())
        done = await runner.submit(Envelope(PROMPT, POLICY), sync=False, key=key)
        job, _ = await ended(runner, done.id)
        assert job.status is Status.COMPLETED
        grant = limits.admission.enter(key_rules(key, streams=True))
        assert grant.headers["x-ratelimit-remaining-tokens"] == "94"  # three words and three tokens
        greedy = await runner.submit(Envelope(STREAM, POLICY), sync=False, key=key)
        job, _ = await ended(runner, greedy.id)

    assert job.status is Status.FAILED
    assert job.error is not None
    assert "at most 5 with this key, got 60" in job.error


async def test_a_key_has_only_so_many_jobs_at_once_and_hears_when_to_come_again(tmp_path: Path) -> None:
    key, limits = alice(jobs=1)
    async with running_jobs(ServerSettings(), tmp_path / "jobs.sqlite3", limits=limits) as runner:
        first = await runner.submit(Envelope(PROMPT, POLICY), sync=False, key=key)
        with pytest.raises(RefusedError, match="This key may have 1 jobs at once") as caught:
            await runner.submit(Envelope(PROMPT, POLICY), sync=False, key=key)
        await submit(runner, PROMPT)
        await runner.cancel(first.id)
        await runner.submit(Envelope(PROMPT, POLICY), sync=False, key=key)

    assert int(caught.value.headers["Retry-After"]) >= 1


async def test_a_job_that_runs_again_counts_for_the_key_it_came_with(fake: FakeEngine, tmp_path: Path) -> None:
    key, limits = alice(jobs=1)
    async with running_jobs(ServerSettings(), tmp_path / "jobs.sqlite3", limits=limits) as runner:
        failed = await runner.submit(Envelope({}, POLICY), sync=False, key=key)
        runner.attach(fake.engine())
        assert (await ended(runner, failed.id))[0].status is Status.FAILED
        fake.gate.clear()
        running = await runner.submit(Envelope(PROMPT, POLICY), sync=False, key=key)
        with pytest.raises(RefusedError, match="1 jobs at once"):
            await runner.retry(failed.id)
        await runner.cancel(running.id)
        assert (await runner.retry(failed.id))[1]


async def test_a_job_keeps_its_limits_when_its_key_is_removed_and_the_server_starts_again(
    fake: FakeEngine, store_url: str
) -> None:
    key, limits = alice(jobs=1, max_tokens=5)
    settings = ServerSettings(job_store_url=store_url)
    async with running_jobs(settings, Path("unused"), limits=limits) as runner:
        greedy = await runner.submit(Envelope(STREAM, POLICY), sync=False, key=key)

    others = JobLimits(KeyRing(listed_keys(["other"])), Admission())
    async with running_jobs(settings, Path("unused"), limits=others) as runner:
        runner.attach(fake.engine())
        for _ in range(2):
            job, _ = await ended(runner, greedy.id)
            assert "at most 5 with this key, got 60" in (job.error or "")
            assert (await runner.retry(greedy.id))[1]


class FaultyRing(KeyRing):
    """One whose file makes trouble that nobody foresaw, from the look of that number on."""

    def __init__(self, key: Key, good_looks: int) -> None:
        super().__init__([key])
        self._good_looks = good_looks

    def named(self, name: str) -> Key | None:
        self._good_looks -= 1
        if self._good_looks < 0:
            raise ValueError("year 2024 has no 99th month")
        return super().named(name)


@pytest.mark.parametrize("looks", [0, 1])
async def test_a_fault_of_the_limits_is_the_end_of_a_job(
    fake: FakeEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture, looks: int
) -> None:
    key, _ = alice(tokens_per_minute=100, jobs=1)
    limits = JobLimits(FaultyRing(key, looks), Admission())
    async with running_jobs(ServerSettings(), tmp_path / "jobs.sqlite3", limits=limits) as runner:
        runner.attach(fake.engine())
        for _ in range(2):  # the first does not count any more
            new = await runner.submit(Envelope(PROMPT, POLICY), sync=False, key=key)
            job, _ = await ended(runner, new.id)
            assert (job.status, job.error) == (Status.FAILED, "The server could not run the job; its log says why.")
            assert not job.refused
    assert f"job {new.id}" in caplog.text
    assert "year 2024" in caplog.text


async def test_a_job_that_cannot_be_charged_keeps_what_was_generated(
    fake: FakeEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key, _ = alice(tokens_per_minute=100)
    limits = JobLimits(FaultyRing(key, 2), Admission())
    async with running_jobs(ServerSettings(), tmp_path / "jobs.sqlite3", limits=limits) as runner:
        runner.attach(fake.engine())
        new = await runner.submit(Envelope(PROMPT, POLICY), sync=False, key=key)
        job, items = await ended(runner, new.id)
    assert job.status is Status.COMPLETED
    assert items[0]["choices"][0]["tokens"] == [" one two three"]
    assert f"charging job {new.id} failed" in caplog.text
