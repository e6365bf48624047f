from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from gptoss_bento.bench import guards, servers
from gptoss_bento.bench.frontend import Load, summarize
from gptoss_bento.bench.guards import NAMES, SERVICE, measure
from gptoss_bento.bench.servers import Cpu
from gptoss_bento.bench.swarm import Route, StreamLoad, Timings
from gptoss_bento.bench.two_ways import Estimate, Measured, Shape, Side, as_json, notes, rows
from gptoss_bento.config.api_keys import KeyLimits, digest, read_keys

SMALL = Shape(pairs=3, streams=4, rounds=3, requests_per_stream=2, max_tokens=16, clients=2)


def load(name: str, tokens_per_s: float, api_s: float, busy: float = 0.1) -> Load:
    timings = Timings(10.0, 14.0, 1.0, 1000, 500, [0.1], [1.0], [0.01])
    found = summarize(name, Route.COMPLETIONS, True, 4, timings, Cpu(api_s, 0.0), 2)
    return replace(found, tokens_per_s=tokens_per_s, client_busy=busy)


@dataclass
class World:
    """A fake of service and clients; a request with a key waits 0.5 ms longer and gets a tenth less."""

    commands: list[list[str]] = field(default_factory=list)
    keys: str = ""
    asked: list[tuple[StreamLoad, int]] = field(default_factory=list)
    pairs: list[tuple[StreamLoad, StreamLoad]] = field(default_factory=list)
    processes: int = 0
    base_url: str = "http://there/v1"
    looks: int = 0

    @contextmanager
    def started(
        self, command: Callable[[int], Sequence[str]], variables: Mapping[str, str], key: str
    ) -> Iterator[World]:
        self.commands.append([*command(1), variables["PROFILE"]])
        self.keys = Path(variables["API_KEYS_FILE"]).read_text()
        self.key = key
        yield self

    @contextmanager
    def swarm(self, processes: int) -> Iterator[World]:
        self.processes = processes
        yield self

    def cpu(self) -> Cpu:
        self.looks += 1
        return Cpu(self.looks, 0)

    def run(self, load: StreamLoad, streams: int) -> Timings:
        self.asked.append((load, streams))
        return Timings(0.0, 1.0, 0.1, 900 if load.key else 1000, 500, [0.1], [1.0], [0.01])

    def run_in_turn(self, one: StreamLoad, other: StreamLoad) -> tuple[Timings, Timings]:
        self.pairs.append((one, other))
        firsts = [
            [(0.0055 if ask.key else 0.005) + pair / 1000 for pair in range(ask.requests)] for ask in (one, other)
        ]
        return Timings(first_s=firsts[0]), Timings(first_s=firsts[1])


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    found = World()
    monkeypatch.setattr(servers, "started", found.started)
    monkeypatch.setattr(guards, "swarm", found.swarm)
    return found


def run(shape: Shape = SMALL, keep: Callable[[Measured], None] = lambda _: None) -> Measured:
    return measure({"PROFILE": "demo"}, "m", shape, lambda _: None, keep)


def test_server_is_measured_with_and_without_its_guards(world: World) -> None:
    run()

    (command,) = world.commands
    assert SERVICE in command
    assert command[-1] == "demo"
    assert world.processes == 2
    for one, other in world.pairs:
        assert (one.key, one.query, other.key, other.query) == (world.key, "", None, "unguarded")
        assert replace(one, key=None, query="unguarded") == other


def test_key_is_one_of_several_with_every_limit(world: World) -> None:
    run()

    keys = read_keys(world.keys)
    assert len(keys) == 10
    assert digest(world.key) in keys[-1].digests
    assert all(getattr(key.limits, name) for key in keys for name in KeyLimits.model_fields)


def test_order_of_the_two_ways_alternates_by_round(world: World) -> None:
    run()

    measured = [bool(ask.key) for ask, streams in world.asked if (ask.requests, streams) == (2, 4)]
    assert measured == [True, False, False, True, True, False]


def test_server_is_warm_before_it_is_measured(world: World) -> None:
    run()

    assert [one.requests for one, _ in world.pairs] == [50, 3]
    assert [(bool(ask.key), ask.requests) for ask, _ in world.asked[:2]] == [(True, 1), (False, 1)]


def test_results_are_kept_after_each_round(world: World) -> None:
    kept: list[Measured] = []
    found = run(keep=kept.append)

    assert [len(each.full.loads) for each in kept] == [len(each.reduced.loads) for each in kept] == [0, 1, 2, 3]
    assert kept[-1] == found
    assert world.looks == 12


@pytest.mark.usefixtures("world")
def test_figure_is_the_median_of_the_differences_within_pairs() -> None:
    first, rate, cpu = rows(run())

    assert (first.full, first.reduced, first.change.value) == pytest.approx((6.5, 6.0, 0.5))
    assert (rate.full, rate.reduced, rate.change.value) == pytest.approx((900, 1000, 0.9))
    assert (cpu.full, cpu.reduced, cpu.change.value) == pytest.approx((16e3 / 900, 16.0, 16e3 / 900 - 16))
    assert [row.unit for row in (first, rate, cpu)] == ["ms", "", "ms"]


def test_first_token_alone_is_reported_before_the_first_load() -> None:
    found = Measured(SMALL, Side((2.0, 3.0)), Side((1.0, 1.5)))

    (first,) = rows(found)
    assert first.change == Estimate(1.25, 1.0, 1.5)


def test_fastest_of_many_pairs_are_compared_too() -> None:
    slow = [10.0, *[1.0] * 9] * 40  # a tenth is disturbed
    found = Measured(SMALL, Side(tuple(value + 0.25 for value in reversed(slow))), Side(tuple(slow)))

    _, fastest = rows(found)
    assert fastest.change == Estimate(0.25, 0.25, 0.25)
    assert (fastest.full, fastest.reduced) == (1.25, 1.0)


@pytest.mark.parametrize(
    ("count", "ranks"), [(1, (1, 1)), (2, (1, 2)), (6, (1, 6)), (10, (2, 9)), (20, (6, 15)), (100, (40, 61))]
)
def test_median_has_a_confidence_interval_of_95_percent(count: int, ranks: tuple[int, int]) -> None:
    found = Estimate.of([float(rank) for rank in range(count, 0, -1)])

    assert found == Estimate((count + 1) / 2, *ranks)


def test_results_are_all_written_to_the_file() -> None:
    side = Side((2.0,), (load(NAMES[0], 100, 1),))
    found = as_json(Measured(SMALL, side, Side((1.0,), (load(NAMES[1], 100, 1),))))

    assert found["rows"][0]["change"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert found["shape"]["pairs"] == 3
    assert found["full"]["loads"][0]["server"] == "with guards"
    assert found["reduced"]["first_ms"] == (1.0,)


def test_clients_that_were_the_bottleneck_are_a_warning() -> None:
    def lines(busy: float) -> list[str]:
        return notes(Measured(SMALL, Side((1.0,), (load(NAMES[0], 1, 1, busy),)), Side((1.0,))), guards.LIMITS)

    assert len(lines(0.1)) == 1
    assert "--clients" in lines(0.9)[1]
