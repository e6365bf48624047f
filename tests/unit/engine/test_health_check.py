from __future__ import annotations

import asyncio

import pytest

from gptoss_bento.engine import health_check as heartbeat_module
from gptoss_bento.engine.health_check import EngineHealthCheck
from gptoss_bento.errors import EngineDiedError


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat_module, "_ASK_S", 0.01)
    monkeypatch.setattr(heartbeat_module, "_UNREADY_S", 0.05)


async def lives() -> None:
    return


async def hangs() -> None:
    await asyncio.Event().wait()


async def fails() -> None:
    raise RuntimeError("shutting down")


async def test_an_engine_that_answers_is_alive() -> None:
    health_check = EngineHealthCheck(lives, 0.2)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(health_check.run(), 0.3)

    assert health_check.silent_s < 0.1
    assert not health_check.is_late


async def test_an_engine_that_hangs_is_late_and_then_given_up() -> None:
    health_check = EngineHealthCheck(hangs, 0.3)
    task = asyncio.create_task(health_check.run())
    await asyncio.sleep(0.1)
    assert health_check.is_late
    with pytest.raises(EngineDiedError, match=r"has not answered for 0\.3 s"):
        await task


async def test_an_engine_that_goes_on_is_not_late_any_more() -> None:
    frozen = asyncio.Event()
    health_check = EngineHealthCheck(frozen.wait, 5)  # type: ignore[arg-type]
    task = asyncio.create_task(health_check.run())
    late = []
    await asyncio.sleep(0.1)
    late.append(health_check.is_late)
    frozen.set()
    await asyncio.sleep(0.02)
    late.append(health_check.is_late)
    task.cancel()
    assert late == [True, False]


async def test_an_engine_that_refuses_the_question_gave_no_sign_of_life() -> None:
    with pytest.raises(EngineDiedError):
        await EngineHealthCheck(fails, 0.1).run()


async def test_without_a_limit_nobody_asks() -> None:
    health_check = EngineHealthCheck(fails, 0)
    await health_check.run()

    assert not health_check.is_late
