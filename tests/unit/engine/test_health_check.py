from __future__ import annotations

import asyncio

import pytest

from gptoss_bento.engine import health_check as heartbeat_module
from gptoss_bento.engine.health_check import EngineHealthCheck
from gptoss_bento.errors import EngineDiedError
from tests.waiting import HANG_S, until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat_module, "_PROBE_TIMEOUT_S", 0.01)
    monkeypatch.setattr(heartbeat_module, "_UNREADY_S", 0.05)


async def lives() -> None:
    return


async def hangs() -> None:
    await asyncio.Event().wait()


async def fails() -> None:
    raise RuntimeError("shutting down")


async def test_engine_that_answers_is_alive() -> None:
    health_check = EngineHealthCheck(lives, 2 * HANG_S)
    await until(lambda: health_check.is_late)  # without a request
    before = health_check.silent_s
    task = asyncio.create_task(health_check.run())
    await until(lambda: health_check.silent_s < before)
    task.cancel()


async def test_health_check_reports_a_late_engine_and_then_fails() -> None:
    health_check = EngineHealthCheck(hangs, 0.3)
    task = asyncio.create_task(health_check.run())
    await until(lambda: health_check.is_late)
    with pytest.raises(EngineDiedError, match=r"has not answered for 0\.3 s"):
        await task


async def test_health_check_recovers_when_the_engine_answers_again() -> None:
    frozen = asyncio.Event()
    health_check = EngineHealthCheck(frozen.wait, 2 * HANG_S)  # type: ignore[arg-type]
    task = asyncio.create_task(health_check.run())
    await until(lambda: health_check.is_late)
    frozen.set()
    await until(lambda: not health_check.is_late)
    task.cancel()


async def test_engine_that_refuses_the_question_gave_no_sign_of_life() -> None:
    with pytest.raises(EngineDiedError):
        await EngineHealthCheck(fails, 0.1).run()


async def test_health_check_without_a_limit_asks_nothing() -> None:
    health_check = EngineHealthCheck(fails, 0)
    await health_check.run()

    assert not health_check.is_late
