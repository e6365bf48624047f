"""Tasks that repeat, fail and stop."""

from __future__ import annotations

import asyncio

import pytest

from gptoss_bento.background.tasks import WorkerTasks, logged
from gptoss_bento.state.database import StoreUnavailableError
from tests.waiting import HANG_S


async def test_task_that_repeats_survives_its_errors_until_the_stop(caplog: pytest.LogCaptureFixture) -> None:
    tasks, calls = WorkerTasks(), asyncio.Queue[None]()

    async def _poll() -> None:
        calls.put_nowait(None)
        raise StoreUnavailableError("gone")

    repeated = tasks.spawn(tasks.every(0, _poll))
    async with asyncio.timeout(HANG_S):
        await calls.get()
        await calls.get()
        await tasks.stop(HANG_S)
    assert repeated.done()
    assert not repeated.cancelled()
    assert "poll: gone" in caplog.text


async def test_task_that_does_not_end_is_cancelled_at_the_stop() -> None:
    tasks = WorkerTasks()
    endless = tasks.spawn(asyncio.Event().wait())
    async with asyncio.timeout(HANG_S):
        await tasks.stop(0.01)
    assert endless.cancelled()


async def test_stop_without_tasks_returns() -> None:
    await WorkerTasks().stop(0)


def test_logged_error_has_its_stack_trace(caplog: pytest.LogCaptureFixture) -> None:
    with logged("adding"):
        raise ZeroDivisionError("why")
    assert "adding failed" in caplog.text
    assert "ZeroDivisionError: why" in caplog.text
