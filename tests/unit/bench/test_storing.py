from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest

from gptoss_bento.bench import servers, storing
from gptoss_bento.bench.servers import Cpu
from gptoss_bento.bench.swarm import Route, StreamLoad, Timings
from gptoss_bento.bench.two_ways import Shape, rows

SMALL = Shape(pairs=2, streams=4, rounds=2, requests_per_stream=2, max_tokens=16, first_tokens=8)


@dataclass
class World:
    """A fake of service and clients; a stored response waits 1 ms longer."""

    base_url: str = "http://there/v1"
    commands: list[Sequence[str]] = field(default_factory=list)
    pairs: list[tuple[StreamLoad, StreamLoad]] = field(default_factory=list)
    processes: int = 1

    @contextmanager
    def started(self, command: Callable[[int], Sequence[str]], variables: Mapping[str, str]) -> Iterator[World]:
        self.commands.append([*command(1), variables["PROFILE"]])
        yield self

    @contextmanager
    def swarm(self, _processes: int) -> Iterator[World]:
        yield self

    def cpu(self) -> Cpu:
        return Cpu(1, 0)

    def run(self, load: StreamLoad, _streams: int) -> Timings:
        return Timings(0.0, 1.0, 0.1, 900 if load.store else 1000, 500, [0.1], [1.0], [0.01])

    def run_in_turn(self, one: StreamLoad, other: StreamLoad) -> tuple[Timings, Timings]:
        self.pairs.append((one, other))
        return Timings(first_s=[0.006] * one.requests), Timings(first_s=[0.005] * other.requests)


def test_same_responses_are_asked_for_stored_and_not(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    monkeypatch.setattr(servers, "started", world.started)
    monkeypatch.setattr(storing, "swarm", world.swarm)

    found = storing.measure({"PROFILE": "demo"}, "m", SMALL, lambda _: None, lambda _: None)

    assert world.commands[0][-1] == "demo"
    for one, other in world.pairs:
        assert (one.route, one.store, one.max_tokens) == (Route.RESPONSES, True, 8)
        assert replace(one, store=False) == other
    first, rate, _ = rows(found)
    assert first.change.value == pytest.approx(1)
    assert rate.change.value == pytest.approx(0.9)
