from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from gptoss_bento.bench import frontend, servers
from gptoss_bento.bench.checkout import Checkout
from gptoss_bento.bench.frontend import Baseline, Load, Measured, Shape, as_json, compare, notes, rows, summarize
from gptoss_bento.bench.servers import Cpu
from gptoss_bento.bench.swarm import Route, StreamLoad, Timings
from gptoss_bento.paths import ROOT

TIMINGS = Timings(10.0, 14.0, 1.0, 1000, 500, [0.1, 0.3], [1.0, 3.0], [0.01, 0.02, 0.03])
LOAD = summarize("gptoss-bento", Route.COMPLETIONS, True, 64, TIMINGS, Cpu(0.2, 0.05), 2)
OTHER = Checkout(Path("/there/older"))
SMALL = Shape(streams=(2, 4), rounds=2, turns=1, workers=3)


@dataclass
class FakeServer:
    """A server that uses a second of CPU between two looks."""

    base_url: str
    looks: int = 0

    def cpu(self) -> Cpu:
        self.looks += 1
        return Cpu(self.looks, self.looks / 10)


@dataclass
class World:
    """A fake of servers and clients; keeps which servers were started, and which were asked."""

    commands: list[list[str]] = field(default_factory=list)
    variables: list[dict[str, str]] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    asked: list[tuple[StreamLoad, int]] = field(default_factory=list)
    processes: int = 0

    @contextmanager
    def started(
        self, command: Callable[[int], Sequence[str]], variables: dict[str, str], log: Path | None, folder: Path
    ) -> Iterator[FakeServer]:
        assert log is None
        self.commands.append(list(command(1)))
        self.variables.append(variables)
        self.folders.append(folder)
        yield FakeServer("http://ours/v1" if len(self.commands) == 1 else "http://bare/v1")

    @contextmanager
    def swarm(self, processes: int) -> Iterator[World]:
        self.processes = processes
        yield self

    def run(self, load: StreamLoad, streams: int) -> Timings:
        self.asked.append((load, streams))
        return TIMINGS


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    found = World()
    monkeypatch.setattr(servers, "started", found.started)
    monkeypatch.setattr(frontend, "swarm", found.swarm)
    return found


def measure(shape: Shape = SMALL) -> Measured:
    return compare(["--model=m", "--seed=1"], {"PROFILE": "demo"}, "m", shape, lambda _: None, lambda _: None)


def test_results_are_kept_after_each_round(world: World) -> None:
    kept: list[Measured] = []
    found = compare(["--model=m"], {}, "m", SMALL, lambda _: None, kept.append)

    assert [len(each.ours) for each in kept] == [len(each.baseline) for each in kept] == [1, 2]
    assert kept[-1] == found
    assert len(world.commands) == 2


def test_loads_go_to_both_servers_in_alternating_order(world: World) -> None:
    measure()

    asked = [(ask.url, ask.streaming, streams) for ask, streams in world.asked if ask.max_tokens == 128]
    ours_first = [("ours", True, 2), ("bare", True, 2), ("ours", True, 4), ("bare", True, 4)]
    assert [(url[7:11], streaming, streams) for url, streaming, streams in asked][:4] == ours_first
    assert [url[7:11] for url, _, _ in asked] == ["ours", "bare"] * 4 + ["bare", "ours"] * 4


def test_turns_of_a_load_are_taken_by_turns_and_added_up(world: World) -> None:
    found = measure(Shape(streams=(2,), rounds=1, turns=3))

    asked = [ask.url[7:11] for ask, _ in world.asked if ask.max_tokens == 128 and ask.streaming]
    assert asked == ["ours", "bare", "bare", "ours", "ours", "bare"]
    assert (found.ours[0][0].tokens, found.ours[0][0].tokens_per_s) == (3000, 250)
    assert found.ours[0][0].api_cpu_s == pytest.approx(1000)


def test_servers_are_both_warm_before_the_measurement(world: World) -> None:
    measure()

    first_measured = next(place for place, (ask, _) in enumerate(world.asked) if ask.max_tokens == 128)
    assert {ask.url for ask, _ in world.asked[:first_measured]} == {"http://ours/v1", "http://bare/v1"}


def test_servers_both_get_the_same_arguments_variables_and_workers(world: World) -> None:
    measure()

    ours, bare = world.commands
    assert ours[2:5] == ["bentoml", "serve", "."]
    assert bare[3:7] == ["serve", "m", "--seed=1", "--api-server-count=3"]
    assert world.variables == [{"PROFILE": "demo", "API_WORKERS": "3"}] * 2


def test_workers_can_be_compared_with_one(world: World) -> None:
    found = measure(replace(SMALL, against=Baseline.ONE_WORKER))

    assert world.commands[0] == world.commands[1] == servers.ours(1)
    assert [variables["API_WORKERS"] for variables in world.variables] == ["3", "1"]
    assert {load.server for load in found.baseline[0]} == {"one worker"}
    assert as_json(found).keys() == {"rows", "shape", "notes", "gptoss-bento", "one worker"}


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> dict[Path, dict[str, Any]]:
    """What each checkout plans."""
    found: dict[Path, dict[str, Any]] = {
        folder: {"arguments": {"max_num_seqs": {"value": seats}}, "environment": {}}
        for folder, seats in ((ROOT, 256), (OTHER.folder, 128))
    }
    monkeypatch.setattr(Checkout, "plan", lambda checkout, _: found[checkout.folder])
    return found


@pytest.mark.usefixtures("plans")
def test_checkout_is_started_in_its_folder_with_the_same_variables(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)

    found = measure(replace(SMALL, against=OTHER))

    assert world.commands[0] == world.commands[1] == servers.ours(1)
    assert world.folders == [ROOT, OTHER.folder]
    ours, other = world.variables
    store = other["JOB_STORE_URL"]
    assert other == {**ours, "PYTHONPATH": "/there/older/src", "JOB_STORE_URL": store}
    assert (ours["API_WORKERS"], store.startswith("sqlite:////")) == ("3", True)
    assert {load.server for load in found.baseline[0]} == {"checkout older"}


@pytest.mark.usefixtures("world", "plans")
def test_checkout_that_plans_otherwise_is_noted() -> None:
    told: list[str] = []
    found = compare(["--model=m"], {}, "m", replace(SMALL, against=OTHER), told.append, lambda _: None)

    difference = "The plans differ: max_num_seqs is 256 here and 128 there."
    assert (told[0], notes(found)[-1]) == (difference, difference)
    content = json.loads(json.dumps(as_json(found)))
    assert content["shape"]["against"] == "/there/older"
    assert content["notes"][-1] == difference
    assert len(content["checkout older"]) == 2


@pytest.mark.usefixtures("world")
def test_checkout_with_the_same_plan_needs_no_note(plans: dict[Path, dict[str, Any]]) -> None:
    plans[OTHER.folder] = plans[ROOT]

    assert len(notes(measure(replace(SMALL, against=OTHER)))) == 1


def test_rounds_are_all_kept(world: World) -> None:
    found = measure(replace(SMALL, routes=(Route.COMPLETIONS, Route.CHAT), clients=5))

    assert [len(loads) for loads in found.ours] == [len(loads) for loads in found.baseline] == [8, 8]
    assert {load.server for load in found.ours[0]} == {"gptoss-bento"}
    assert {load.server for load in found.baseline[0]} == {"vLLM"}
    assert world.processes == 5


def test_load_becomes_rates_and_percentiles() -> None:
    assert LOAD.tokens_per_s == 250
    assert LOAD.tokens_per_message == 2
    assert (LOAD.api_cpu_s, LOAD.engine_cpu_s, LOAD.client_cpu_s) == pytest.approx((200, 50, 1000))
    assert LOAD.client_busy == 0.125
    assert (LOAD.first_median_ms, LOAD.first_p99_ms) == pytest.approx((200, 298))
    assert (LOAD.gap_median_ms, LOAD.gap_p99_ms) == pytest.approx((20, 29.8))
    assert (LOAD.whole_median_ms, LOAD.whole_p99_ms) == pytest.approx((2000, 2980))


def measured(**changes: Any) -> Measured:
    bare = replace(LOAD, server="vLLM", **changes)
    return Measured(SMALL, ((LOAD,),) * 2, ((bare,),) * 2)


def table(found: Measured) -> dict[str, tuple[float, float | None]]:
    return {row.figure: (row.ours, row.ratio) for row in rows(found)}


def test_table_compares_the_medians() -> None:
    found = table(measured(tokens_per_s=500.0, api_cpu_s=100.0))

    assert found["output tokens/s, completions, 64"] == pytest.approx((250, 0.5))
    assert found["API server, CPU s per million tokens, completions, 64"] == pytest.approx((200, 2))
    assert found["first token, p99 ms, completions, 64"] == pytest.approx((298, 1))


def test_answer_in_one_piece_has_no_first_token() -> None:
    whole: Load = replace(LOAD, streaming=False)
    figures = list(table(Measured(SMALL, ((whole,),), ((whole,),))))

    assert all(figure.endswith("completions in one piece, 64") for figure in figures)
    assert not [figure for figure in figures if figure.startswith(("first", "between"))]


def test_results_are_all_written_to_the_file() -> None:
    found = as_json(measured())

    assert (found["shape"]["workers"], found["shape"]["against"]) == (3, "vllm")
    assert found["gptoss-bento"][0][0]["tokens_per_s"] == 250
    assert found["vLLM"][1][0]["streams"] == 64
    assert found["rows"][0].keys() == {"figure", "ours", "baseline", "ratio"}


def test_clients_that_were_the_bottleneck_are_a_warning() -> None:
    assert [note[:20] for note in notes(measured())] == ["Medians of 2 rounds."]
    (_, warning) = notes(measured(client_busy=0.9))
    assert "--clients" in warning
