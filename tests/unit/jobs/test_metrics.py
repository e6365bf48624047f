"""The gauges, as a runner sets them. That /metrics has them is tested on the real server."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.jobs import housekeeping
from gptoss_bento.jobs.fake_engine import FakeEngine
from gptoss_bento.jobs.input import Envelope, Policy
from gptoss_bento.jobs.metrics import job_gauges
from gptoss_bento.jobs.runner import Runner, running_jobs
from tests.waiting import until

POLICY = Policy(600_000, 86_400_000)


def counted() -> tuple[float | None, float | None]:
    """(waiting, running), as Prometheus would read them."""
    names = ("gptoss_bento_jobs_in_queue", "gptoss_bento_jobs_in_progress")
    return REGISTRY.get_sample_value(names[0]), REGISTRY.get_sample_value(names[1])


async def until_counted(waiting: int, running: int) -> None:
    await until(lambda: counted() == (waiting, running))  # Prometheus would look again, too


async def submit(runner: Runner, count: int) -> None:
    given = {"prompt": "x", "sampling_params": {"max_tokens": 5}}
    for _ in range(count):
        await runner.submit(Envelope(given, POLICY, None), sync=False)


async def test_job_gauges_count_what_waits_and_what_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(housekeeping, "GAUGE_INTERVAL_S", 0.01)
    fake = FakeEngine()
    fake.gate.clear()
    settings = ServerSettings(job_store_url=f"sqlite:///{tmp_path / 'jobs.sqlite3'}", max_concurrency=2)
    async with running_jobs(settings, Path("unused")) as runner:
        await submit(runner, 5)
        await until_counted(5, 0)

        runner.attach(fake.engine())
        await until_counted(3, 2)

        fake.gate.set()
        await until_counted(0, 0)


def test_job_gauges_exist_once_in_a_process() -> None:
    assert job_gauges() is job_gauges()
