"""Limits of the keys that jobs were submitted with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gptoss_bento.access.admission import Admission, RefusedError, key_rules
from gptoss_bento.access.key_store import KeyStore
from gptoss_bento.config.api_keys import Key, KeyLimits, digest, listed_keys
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.jobs.fake_engine import FakeEngine
from gptoss_bento.jobs.input import Envelope
from gptoss_bento.jobs.limits import JobLimits
from gptoss_bento.jobs.runner import running_jobs
from gptoss_bento.state.job import Status
from tests.unit.jobs.runner.support import POLICY, PROMPT, STREAM, ended, submit


def alice(**limits: Any) -> tuple[Key, JobLimits]:
    key = Key("alice", (digest("s3cret"),), KeyLimits(**limits))
    return key, JobLimits(KeyStore([key]), Admission(clock=lambda: 1.0))


async def test_rate_limit_charges_a_job_to_its_key(fake: FakeEngine, tmp_path: Path) -> None:
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


async def test_key_limit_of_jobs_refuses_with_retry_after(tmp_path: Path) -> None:
    key, limits = alice(jobs=1)
    async with running_jobs(ServerSettings(), tmp_path / "jobs.sqlite3", limits=limits) as runner:
        first = await runner.submit(Envelope(PROMPT, POLICY), sync=False, key=key)
        with pytest.raises(RefusedError, match="This key may have 1 unfinished jobs") as caught:
            await runner.submit(Envelope(PROMPT, POLICY), sync=False, key=key)
        await submit(runner, PROMPT)
        await runner.cancel(first.id)
        await runner.submit(Envelope(PROMPT, POLICY), sync=False, key=key)

    assert int(caught.value.headers["Retry-After"]) >= 1


async def test_retry_counts_for_the_key_of_the_job(fake: FakeEngine, tmp_path: Path) -> None:
    key, limits = alice(jobs=1)
    async with running_jobs(ServerSettings(), tmp_path / "jobs.sqlite3", limits=limits) as runner:
        failed = await runner.submit(Envelope({}, POLICY), sync=False, key=key)
        runner.attach(fake.engine())
        assert (await ended(runner, failed.id))[0].status is Status.FAILED
        fake.gate.clear()
        running = await runner.submit(Envelope(PROMPT, POLICY), sync=False, key=key)
        with pytest.raises(RefusedError, match="1 unfinished jobs"):
            await runner.retry(failed.id)
        await runner.cancel(running.id)
        assert (await runner.retry(failed.id))[1]


async def test_key_limits_of_a_job_outlive_the_key_and_a_restart(fake: FakeEngine, store_url: str) -> None:
    key, limits = alice(jobs=1, max_tokens=5)
    settings = ServerSettings(job_store_url=store_url)
    async with running_jobs(settings, Path("unused"), limits=limits) as runner:
        greedy = await runner.submit(Envelope(STREAM, POLICY), sync=False, key=key)

    others = JobLimits(KeyStore(listed_keys(["other"])), Admission())
    async with running_jobs(settings, Path("unused"), limits=others) as runner:
        runner.attach(fake.engine())
        for _ in range(2):
            job, _ = await ended(runner, greedy.id)
            assert "at most 5 with this key, got 60" in (job.error or "")
            assert (await runner.retry(greedy.id))[1]


async def test_job_of_a_listed_key_belongs_to_the_key_at_any_place(tmp_path: Path) -> None:
    (bob,) = listed_keys(["bobs-key"])
    keys = KeyStore(listed_keys(["alices-key", "bobs-key"]))
    settings, file = ServerSettings(), tmp_path / "jobs.sqlite3"
    async with running_jobs(settings, file, limits=JobLimits(keys, Admission())) as runner:
        new = await runner.submit(Envelope(PROMPT, POLICY), sync=False, key=keys.find("bobs-key"))
        found = await runner.store.get(new.id)

    assert found
    assert found.owner == bob.owner


async def test_job_of_a_listed_key_from_before_schema_5_runs_and_is_found(fake: FakeEngine, tmp_path: Path) -> None:
    limits = JobLimits(KeyStore(listed_keys(["bobs-key"])), Admission())
    async with running_jobs(ServerSettings(), tmp_path / "jobs.sqlite3", limits=limits) as runner:
        old = await runner.submit(Envelope(PROMPT, POLICY), sync=False, key=Key("key-1", (digest("alices-key"),)))
        runner.attach(fake.engine())
        job, _ = await ended(runner, old.id)

    assert (job.owner, job.status) == ("key-1", Status.COMPLETED)


class FaultyRing(KeyStore):
    """A key store whose file raises an unexpected error, from the poll of that number on."""

    def __init__(self, key: Key, good_looks: int) -> None:
        super().__init__([key])
        self._good_looks = good_looks

    def of_owner(self, owner: str) -> Key | None:
        self._good_looks -= 1
        if self._good_looks < 0:
            raise ValueError("year 2024 has no 99th month")
        return super().of_owner(owner)


@pytest.mark.parametrize("looks", [0, 1])
async def test_key_limits_that_raise_fail_the_job(
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


async def test_rate_limit_that_cannot_charge_keeps_the_output(
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
