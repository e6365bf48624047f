"""Runners on the fake engine, with short intervals."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gptoss_bento.jobs import housekeeping, webhooks
from gptoss_bento.jobs import runner as runner_module
from gptoss_bento.jobs.fake_engine import FakeEngine
from gptoss_bento.jobs.runner import Runner
from tests.unit.jobs.runner.support import jobs_on


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens every second happens often here, so that no test has to wait for it."""
    monkeypatch.setattr(runner_module, "POLL_INTERVAL_S", 0.05)
    monkeypatch.setattr(housekeeping, "EXPIRE_INTERVAL_S", 0.05)
    monkeypatch.setattr(webhooks, "POLL_INTERVAL_S", 0.05)


@pytest.fixture
def fake() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def jobs(fake: FakeEngine, store_url: str) -> AsyncIterator[Runner]:
    async with jobs_on(fake, store_url) as runner:
        yield runner
