from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from gptoss_bento.engine.engine_gauges import EngineClock

_SETS = """
import sys
from gptoss_bento.engine.engine_gauges import EngineClock
clock = EngineClock()
gauge = clock.gauge()("running", "Requests.", ["engine"], multiprocess_mode="mostrecent").labels("0")
live = clock.gauge()("live", "Workers.", multiprocess_mode="sum")
live.set(1)
if sys.argv[1]:
    clock.seconds = float(sys.argv[1])
gauge.set(float(sys.argv[2]))
"""
_COLLECTS = """
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
registry = CollectorRegistry()
MultiProcessCollector(registry)
print(generate_latest(registry).decode())
"""


def run(folder: Path, code: str, *words: str) -> str:
    """In a separate process, as workers are."""
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(
        command, env={"PROMETHEUS_MULTIPROC_DIR": str(folder)}, check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize(("late", "first"), [("6.0", "7.0"), ("", "7.0")])
def test_gauge_of_a_late_worker_does_not_overwrite_a_newer_value(tmp_path: Path, late: str, first: str) -> None:
    run(tmp_path, _SETS, first, "0")
    run(tmp_path, _SETS, late, "1")

    found = run(tmp_path, _COLLECTS).splitlines()
    assert 'running{engine="0"} 0.0' in found
    assert "live 2.0" in found


def test_gauge_has_the_newest_value_of_any_worker(tmp_path: Path) -> None:
    for seconds, value in (("6", "1"), ("8", "0"), ("7", "2")):
        run(tmp_path, _SETS, seconds, value)

    assert 'running{engine="0"} 0.0' in run(tmp_path, _COLLECTS).splitlines()


@dataclass
class Message:
    timestamp: float


async def test_clock_follows_the_engines_messages() -> None:
    clock = EngineClock()
    messages = iter([Message(5.0), Message(4.0)])

    async def receive() -> Message:
        return next(messages)

    receive_dated = clock.following(receive)

    assert await receive_dated() == Message(5.0)
    assert clock.seconds == 5.0
    await receive_dated()
    assert clock.seconds == 4.0
