from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from gptoss_bento.workers import sigterm
from gptoss_bento.workers.worker_group import WorkerGroup
from tests.fakes import Calls


@pytest.fixture
def signals() -> Iterator[None]:
    """Puts the handlers back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("drain_s", "limit_s"), [(0.0, 8.0), (2.0, 8.0), (5.0, 8.0), (60.0, 63.0)])
def test_a_signal_starts_the_countdown_and_tells_us(
    number: signal.Signals, drain_s: float, limit_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_down, on_stop, behind = Calls(), Calls(drain_s), Calls()
    monkeypatch.setattr(sigterm, "_count_down", count_down)
    signal.signal(number, behind)

    sigterm.handle_stop_signals(on_stop, WorkerGroup())
    signal.raise_signal(number)

    assert [made[0] for made in count_down.made] == [limit_s]
    assert behind.made == [], "uvicorn goes on until it is told"
    ((seen, end),) = on_stop.made
    assert seen == number
    end()
    assert [seen for seen, _ in behind.made] == [number]


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("behind", [signal.SIG_DFL, signal.SIG_IGN])
def test_a_signal_without_a_handler_behind_is_no_error(
    behind: signal.Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_stop = Calls(0.0)
    monkeypatch.setattr(sigterm, "_count_down", Calls())
    signal.signal(signal.SIGTERM, behind)

    sigterm.handle_stop_signals(on_stop, WorkerGroup())
    signal.raise_signal(signal.SIGTERM)

    ((_, end),) = on_stop.made
    end()


# A worker that hangs, with a child that ignores SIGTERM, as a loading engine does.
HANGING = """
import signal, subprocess, sys, time
from gptoss_bento.workers import sigterm
from gptoss_bento.workers.worker_group import WorkerGroup
sigterm.SHUTDOWN_LIMIT_S = 0.1
child = subprocess.Popen(["sh", "-c", "trap '' TERM; echo up; exec sleep 60"], stdout=subprocess.PIPE)
child.stdout.readline()
sigterm.handle_stop_signals(lambda number, end: 0, WorkerGroup())
print(child.pid, flush=True)
signal.raise_signal(signal.SIGTERM)
time.sleep(60)
"""


def test_a_worker_that_hangs_is_ended_with_its_children() -> None:
    ended = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=30)

    assert ended.returncode == 0, ended.stderr
    assert not psutil.pid_exists(int(ended.stdout)) or psutil.Process(int(ended.stdout)).status() == "zombie"
