from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import pytest

from gptoss_bento.workers import graceful_shutdown
from gptoss_bento.workers.graceful_shutdown import GracefulShutdown
from tests.fakes import Calls
from tests.waiting import HANG_S, until


@dataclass
class Work:
    busy: bool = True
    is_paused: bool = False
    handed_back: int = 0

    def pause(self) -> None:
        self.is_paused = True

    async def abort(self) -> None:
        self.handed_back += 1
        self.busy = False


async def until_called(calls: Calls) -> None:
    await until(lambda: calls.made)


async def test_shutdown_lets_running_requests_end() -> None:
    drain, work, end = GracefulShutdown(), Work(), Calls()
    async with drain.draining(2 * HANG_S, work):
        assert drain.begin(end) == 2 * HANG_S
        assert drain.begun
        await until(lambda: work.is_paused)
        assert end.made == []

        work.busy = False
        await until_called(end)
    assert (len(end.made), work.handed_back) == (1, 1)


async def test_shutdown_aborts_requests_after_the_drain_timeout() -> None:
    drain, work, end = GracefulShutdown(), Work(), Calls()
    async with drain.draining(0.1, work):
        started = time.monotonic()
        drain.begin(end)
        await until_called(end)
    assert time.monotonic() - started >= 0.1
    assert work.handed_back == 1


async def test_shutdown_waits_until_aborts_are_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graceful_shutdown, "_ABORT_GRACE_S", 2 * HANG_S)
    drain = GracefulShutdown()
    drain.in_flight = 1
    hearing = asyncio.create_task(drain.wait_delivered())
    await asyncio.sleep(0.1)
    assert not hearing.done()
    drain.in_flight = 0
    await asyncio.wait_for(hearing, HANG_S)


async def test_shutdown_of_an_idle_service_is_immediate() -> None:
    drain, end = GracefulShutdown(), Calls()
    async with drain.draining(2 * HANG_S, Work(busy=False)):
        drain.begin(end)
        await until_called(end)


async def test_shutdown_delivers_errors_to_aborted_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graceful_shutdown, "_ABORT_GRACE_S", 2 * HANG_S)
    drain, end = GracefulShutdown(), Calls()
    drain.in_flight = 1
    async with drain.draining(0, Work()):
        drain.begin(end)
        await asyncio.sleep(0.1)
        assert end.made == []
        drain.in_flight = 0
        await until_called(end)


async def test_shutdown_can_be_forced() -> None:
    drain, end = GracefulShutdown(), Calls()
    async with drain.draining(2 * HANG_S, Work()):
        drain.begin(end)
        drain.force()
        await until_called(end)


def test_shutdown_before_the_engine_runs_has_nothing_to_drain() -> None:
    drain, end = GracefulShutdown(), Calls()

    assert drain.begin(end) == 0
    assert len(end.made) == 1


@pytest.mark.parametrize("begun", [True, False])
async def test_shutdown_ends_when_the_engine_fails(begun: bool) -> None:
    drain, end = GracefulShutdown(), Calls()
    async with drain.draining(2 * HANG_S, Work()):
        if begun:
            drain.begin(end)
            await asyncio.sleep(0.1)
    await asyncio.sleep(0.01)
    assert len(end.made) == begun


async def test_shutdown_happens_once_however_often_it_is_requested() -> None:
    drain, end = GracefulShutdown(), Calls()
    async with drain.draining(2 * HANG_S, Work(busy=False)):
        for _ in range(3):
            drain.begin(end)
        await until_called(end)
        drain.begin(end)
        await asyncio.sleep(0.1)
    assert len(end.made) == 1
