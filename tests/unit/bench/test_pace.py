"""The time between the steps of an engine without a model."""

from __future__ import annotations

import time

import pytest

from gptoss_bento.bench.pace import STEP_MS, Pace


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: made.now)
    monkeypatch.setattr(time, "sleep", made.sleep)
    return made


def starts(pace: Pace, clock: Clock, *work_s: float) -> list[int]:
    """When each step begins, in milliseconds from the first; each then takes so long."""
    found = []
    for seconds in work_s:
        pace.keep()
        found.append(round(1000 * (clock.now - 100)))
        clock.now += seconds
    return found


def test_steps_keep_their_distance(clock: Clock) -> None:
    assert starts(Pace.of({STEP_MS: 10}), clock, 0.001, 0.004, 0) == [0, 10, 20]


def test_pace_does_not_catch_up_after_a_slow_step(clock: Clock) -> None:
    assert starts(Pace(0.01), clock, 0.05, 0, 0) == [0, 50, 60]


def test_pace_that_is_not_set_delays_nothing(clock: Clock) -> None:
    assert starts(Pace.of({}), clock, 0, 0.001, 0) == [0, 0, 1]
