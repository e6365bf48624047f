"""The items of a job, as they arrive and as a client takes them."""

from __future__ import annotations

import pytest

from gptoss_bento.jobs.fake_engine import FakeEngine
from gptoss_bento.jobs.runner import Runner
from gptoss_bento.state.job import Status
from tests.unit.jobs.runner.support import PROMPT, STREAM, ended, jobs_on, submit, take
from tests.waiting import until


@pytest.mark.parametrize("per_event", [1, 7, 60])
async def test_stream_has_the_same_batches_whatever_the_engine_sends(
    jobs: Runner, fake: FakeEngine, per_event: int
) -> None:
    fake.per_event = per_event
    _, items = await ended(jobs, await submit(jobs, STREAM))

    assert [len(item["choices"][0]["tokens"]) for item in items] == [1, 3, 9, 27, 20]
    assert [item["usage"]["output"] for item in items] == [1, 4, 13, 40, 60]
    assert {item["usage"]["input"] for item in items} == {3}
    assert items[0]["choices"][0]["tokens"] + items[1]["choices"][0]["tokens"] == [" one", " two", " three", " one"]


@pytest.mark.parametrize("per_event", [1, 4, 99])
async def test_stream_of_a_chat_has_only_its_final_channel(jobs: Runner, fake: FakeEngine, per_event: int) -> None:
    fake.answer, fake.per_event = [b"Gr", b"\xc3", b"\xbc", b"ezi"], per_event
    given = {"messages": [{"role": "user", "content": "x"}], "stream": True, "batch_size_growth_factor": 1}
    _, items = await ended(jobs, await submit(jobs, {**given, "max_batch_size": 2}))

    assert [item["choices"][0]["tokens"] for item in items] == [["Gr", ""], ["ü", "ezi"], [""]]
    assert items[0]["choices"][0]["reasoning"] == "I think"
    assert [item["usage"]["output"] for item in items] == [13, 15, 16]


async def test_stream_in_openai_format_joins_to_the_engines_body(fake: FakeEngine, store_url: str) -> None:
    async with jobs_on(fake, store_url, native_output_format="openai") as jobs:
        _, items = await ended(jobs, await submit(jobs, STREAM))

    assert "".join(items).endswith("data: [DONE]\n\n")
    assert "".join(items).count("\n\n") == 61


async def test_stream_that_fails_keeps_the_items_before(jobs: Runner, fake: FakeEngine) -> None:
    fake.break_after = 5
    job_id = await submit(jobs, STREAM)
    job, _ = await ended(jobs, job_id)

    assert (job.status, job.error, job.refused) == (Status.FAILED, "the engine stumbled", False)
    status, items = await take(jobs, job_id)
    assert status is Status.FAILED
    assert [len(item["choices"][0]["tokens"]) for item in items[:-1]] == [1, 3]
    assert items[-1] == {"error": "the engine stumbled"}


async def test_stream_returns_items_once_as_they_arrive(jobs: Runner, fake: FakeEngine) -> None:
    fake.gate_after = 13  # the third item has been written then, and the fourth not
    fake.gate.clear()
    job_id = await submit(jobs, STREAM)
    status, items = await take(jobs, job_id)
    assert status is Status.IN_PROGRESS
    assert items
    fake.gate.set()
    while not status.is_terminal:
        status, new = await take(jobs, job_id)
        items += new

    assert sum(len(item["choices"][0]["tokens"]) for item in items) == 60
    assert await take(jobs, job_id) == (Status.COMPLETED, [])
    assert (await ended(jobs, job_id))[1] == items


async def test_disconnect_takes_no_items(jobs: Runner) -> None:
    async def left() -> bool:
        return True

    job_id = await submit(jobs, PROMPT)
    await ended(jobs, job_id)
    assert (await jobs.stream(job_id, 0, left))[1] == []
    assert len((await take(jobs, job_id))[1]) == 1


async def test_poll_waits_no_longer_than_asked(jobs: Runner, fake: FakeEngine) -> None:
    fake.gate.clear()
    job_id = await submit(jobs, STREAM)
    await until(lambda: fake.running)

    assert await take(jobs, job_id, 0.02) == (Status.IN_PROGRESS, [])
    fake.gate.set()
