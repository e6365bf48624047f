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


async def test_what_runs_may_end() -> None:
    drain, work, end = GracefulShutdown(), Work(), Calls()
    async with drain.draining(2 * HANG_S, work):
        assert drain.begin(end) == 2 * HANG_S
        assert drain.begun
        await until(lambda: work.is_paused)
        assert end.made == []

        work.busy = False
        await until_called(end)
    assert (len(end.made), work.handed_back) == (1, 1)


async def test_what_runs_too_long_is_handed_back() -> None:
    drain, work, end = GracefulShutdown(), Work(), Calls()
    async with drain.draining(0.1, work):
        started = time.monotonic()
        drain.begin(end)
        await until_called(end)
    assert time.monotonic() - started >= 0.1
    assert work.handed_back == 1


async def test_what_was_cut_off_gets_a_moment_to_hear_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graceful_shutdown, "_ABORT_GRACE_S", 2 * HANG_S)
    drain = GracefulShutdown()
    drain.in_flight = 1
    hearing = asyncio.create_task(drain.wait_delivered())
    await asyncio.sleep(0.1)
    assert not hearing.done()
    drain.in_flight = 0
    await asyncio.wait_for(hearing, HANG_S)


async def test_an_idle_service_ends_at_once() -> None:
    drain, end = GracefulShutdown(), Calls()
    async with drain.draining(2 * HANG_S, Work(busy=False)):
        drain.begin(end)
        await until_called(end)


async def test_requests_that_were_cut_off_may_hear_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graceful_shutdown, "_ABORT_GRACE_S", 2 * HANG_S)
    drain, end = GracefulShutdown(), Calls()
    drain.in_flight = 1
    async with drain.draining(0, Work()):
        drain.begin(end)
        await asyncio.sleep(0.1)
        assert end.made == []
        drain.in_flight = 0
        await until_called(end)


async def test_whoever_asks_again_does_not_wait() -> None:
    drain, end = GracefulShutdown(), Calls()
    async with drain.draining(2 * HANG_S, Work()):
        drain.begin(end)
        drain.force()
        await until_called(end)


def test_before_the_engine_runs_there_is_nothing_to_drain() -> None:
    drain, end = GracefulShutdown(), Calls()

    assert drain.begin(end) == 0
    assert len(end.made) == 1


@pytest.mark.parametrize("begun", [True, False])
async def test_an_engine_that_dies_meanwhile_does_not_hold_up_the_end(begun: bool) -> None:
    drain, end = GracefulShutdown(), Calls()
    async with drain.draining(2 * HANG_S, Work()):
        if begun:
            drain.begin(end)
            await asyncio.sleep(0.1)
    await asyncio.sleep(0.01)
    assert len(end.made) == begun


async def test_it_ends_once_however_often_it_is_asked() -> None:
    drain, end = GracefulShutdown(), Calls()
    async with drain.draining(2 * HANG_S, Work(busy=False)):
        for _ in range(3):
            drain.begin(end)
        await until_called(end)
        drain.begin(end)
        await asyncio.sleep(0.1)
    assert len(end.made) == 1
