"""What workers/sigterm.py relies on in circus, BentoML's supervisor."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gptoss_bento.workers import sigterm
from tests.waiting import until

with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
    from circus.arbiter import Arbiter  # type: ignore[import-untyped]
    from circus.controller import Controller  # type: ignore[import-untyped]
    from circus.sighandler import SysHandler  # type: ignore[import-untyped]
    from circus.util import synchronized  # type: ignore[import-untyped]
    from tornado.ioloop import IOLoop

pytestmark = pytest.mark.filterwarnings("ignore:add_callback_from_signal:DeprecationWarning")  # circus's own way


class BusyArbiter:
    """As much of circus's arbiter as a stop meets, at work until `idle`."""

    _restarting = False
    _stopping = False
    stops = 0

    def __init__(self) -> None:
        self._exclusive_running_command: str | None = "manage_watchers"

    def idle(self) -> None:
        self._exclusive_running_command = None

    @synchronized("arbiter_stop")  # type: ignore[untyped-decorator]
    def stop(self) -> None:
        self._stopping = True
        self.stops += 1


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SysHandler, "quit", SysHandler.quit)  # puts it back afterwards
    sigterm.patch_circus_sigterm()


@contextmanager
def controlled(arbiter: BusyArbiter) -> Iterator[None]:
    """circus's own controller, with its handlers of signals."""
    controller = Controller("", None, None, IOLoop.current(), arbiter)
    controller.send_response = lambda *_, **__: None  # without a recipient: a signal waits for no answer
    try:
        yield
    finally:
        controller.sys_hdl.stop()


async def stops_of(busy_s: float, *, signals: int = 1, wanted: bool = False) -> int:
    arbiter = BusyArbiter()
    with controlled(arbiter):
        for _ in range(signals):
            os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(busy_s)
        arbiter.idle()
        await asyncio.sleep(0.2)
        if wanted:
            await until(lambda: arbiter.stops)
    return arbiter.stops


async def test_sigterm_is_still_lost_while_circus_manages_its_workers() -> None:
    """Why `patch_circus_sigterm` is there. When this fails, circus has fixed it."""
    assert await stops_of(0.1) == 0


@pytest.mark.usefixtures("patched")
@pytest.mark.parametrize(("busy_s", "signals"), [(0.1, 1), (0, 1), (0.1, 3)])
async def test_patched_arbiter_waits_and_stops_once(busy_s: float, signals: int) -> None:
    assert await stops_of(busy_s, signals=signals, wanted=True) >= 1


@pytest.mark.parametrize("name", ["manage_watchers", "stop"])
def test_arbiter_does_one_at_a_time(name: str) -> None:
    method: Callable[..., Any] = getattr(Arbiter, name)
    assert inspect.unwrap(method) is not method
    assert {"_exclusive_running_command", "_stopping"} <= vars(Arbiter([], "", "")).keys()
