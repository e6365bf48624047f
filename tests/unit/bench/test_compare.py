from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from gptoss_bento.bench import compare, compilations, servers, token_load
from gptoss_bento.bench.baselines import Candidate
from gptoss_bento.bench.compare import FirstLoads, Shape, compare_apart, compare_together, measure_running
from gptoss_bento.bench.compilations import Compilations
from gptoss_bento.bench.servers import Memory
from gptoss_bento.bench.swarm import Swarm
from gptoss_bento.bench.token_load import Answers, Lengths, Sample, Target, TokenLoad
from gptoss_bento.errors import EngineStartError
from gptoss_bento.paths import ROOT
from tests.fakes import Calls

LOADS = (TokenLoad(1, 4, Lengths(16, 8)), TokenLoad(8, 16, Lengths(16, 8)))
WARM_UP = "4 streams, 48:16"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """URL, load and seed of each load; no process is started and no server asked."""
    loads: list[tuple[str, str, str]] = []

    def measure(_: Swarm, target: Target, load: TokenLoad, seed: str) -> Answers:
        loads.append((target.url, str(load), seed))
        return Answers(10.0, 12.0, samples=[Sample(0.1, 1.0, 8)] * load.requests)

    @contextmanager
    def swarm(processes: int) -> Iterator[Swarm]:
        yield Swarm(None, processes)  # type: ignore[arg-type]

    monkeypatch.setattr(compare, "swarm", swarm)
    monkeypatch.setattr(token_load, "wake", lambda _: None)
    monkeypatch.setattr(token_load, "measure", measure)
    monkeypatch.setattr(compilations, "count", lambda *_: None)
    return loads


@dataclass
class FakeServer:
    base_url: str
    ready_s: float = 40.0
    command: tuple[str, ...] = ("command",)

    def memory(self) -> Memory:
        if self.base_url == "one":
            raise psutil.AccessDenied
        return Memory(3000.0, 2900.0)


@dataclass
class Starter:
    """A fake of `servers.started` that keeps what happens; servers named in `broken` do not start."""

    events: list[str] = field(default_factory=list)
    broken: tuple[str, ...] = ()
    logs: list[Path | None] = field(default_factory=list)

    @contextmanager
    def __call__(
        self, command: Callable[[int], Sequence[str]], variables: Mapping[str, str], log: Path | None, folder: Path
    ) -> Iterator[FakeServer]:
        (name,) = command(1)
        assert folder == ROOT
        assert variables == {"FOR": name}
        self.logs.append(log)
        if name in self.broken:
            raise EngineStartError("it ended")
        self.events.append(f"{name} up")
        yield FakeServer(name)
        self.events.append(f"{name} down")


@pytest.fixture
def starter(monkeypatch: pytest.MonkeyPatch) -> Starter:
    found = Starter()
    monkeypatch.setattr(servers, "started", found)
    return found


def candidates(*names: str) -> list[Candidate]:
    return [Candidate(name, lambda _, name=name: [name], {"FOR": name}) for name in names]  # type: ignore[misc]


def measured(run: Callable[..., Any], names: Sequence[str], shape: Shape, **further: Any) -> Any:
    return run(candidates(*names), "m", shape, Calls(), Calls(), **further)


def test_running_servers_are_measured_after_a_warm_up(asked: list[tuple[str, str, str]]) -> None:
    keep = Calls()

    found = measure_running({"here": "http://here/v1"}, "m", Shape(LOADS, rounds=1), Calls(), keep)

    assert asked == [
        ("http://here/v1", WARM_UP, "0/warm-up"),
        ("http://here/v1", "1 stream, 16:8", "0/0/0"),
        ("http://here/v1", "8 streams, 16:8", "0/0/1"),
    ]
    assert [(each.server, each.streams, each.completed) for each in found.loads] == [("here", 1, 4), ("here", 8, 16)]
    assert [len(kept.loads) for (kept,) in keep.made] == [1, 2], "kept after each load"


def test_model_without_a_name_is_the_first_that_the_server_lists(
    asked: list[tuple[str, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {"object": "list", "data": [{"id": "first"}, {"id": "second"}]}
    get = Calls(compute=lambda url: httpx.Response(200, json=models, request=httpx.Request("GET", url)))
    monkeypatch.setattr(httpx, "get", get)

    measure_running({"here": "http://here/v1"}, None, Shape(LOADS, rounds=1), Calls(), Calls())

    assert get.made == [("http://here/v1/models",)]
    assert len(asked) == 3


@pytest.mark.usefixtures("asked")
def test_server_that_lists_no_models_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpx, "get", lambda url: httpx.Response(503, request=httpx.Request("GET", url)))

    with pytest.raises(httpx.HTTPStatusError):
        measure_running({"here": "http://here/v1"}, None, Shape(LOADS), Calls(), Calls())


def test_servers_that_run_together_are_first_in_turn(asked: list[tuple[str, str, str]], starter: Starter) -> None:
    found = measured(compare_together, ["ours", "one", "two"], Shape(LOADS[:1], rounds=3))

    assert starter.events == ["ours up", "one up", "two up", "two down", "one down", "ours down"]
    assert [url for url, load, _ in asked if load == WARM_UP] == ["ours", "one", "two"]
    assert [url for url, load, _ in asked if load != WARM_UP] == [
        *("ours", "one", "two"),
        *("one", "two", "ours"),
        *("two", "ours", "one"),
    ]
    assert found.servers == ("ours", "one", "two")
    assert [start.memory for start in found.starts] == [Memory(3000.0, 2900.0), None, Memory(3000.0, 2900.0)]
    assert {start.ready_s for start in found.starts} == {40.0}


def test_servers_of_a_round_are_asked_the_same(asked: list[tuple[str, str, str]], starter: Starter) -> None:
    measured(compare_together, ["ours", "one"], Shape(LOADS, rounds=2, seed=7))

    seeds = [seed for _, load, seed in asked if load != WARM_UP]
    assert seeds == ["7/0/0", "7/0/0", "7/0/1", "7/0/1", "7/1/0", "7/1/0", "7/1/1", "7/1/1"]
    assert starter.logs == [None, None]


def test_first_loads_come_right_after_each_start_without_a_warm_up(
    asked: list[tuple[str, str, str]], starter: Starter
) -> None:
    shape = Shape(LOADS[:1], rounds=1, first=FirstLoads(TokenLoad(64, 64, Lengths(16, 8)), 3))

    found = measured(compare_together, ["ours", "one"], shape)

    assert [(url, seed) for url, *_, seed in asked] == [
        *(("ours", "0/first/0"), ("ours", "0/first/1"), ("ours", "0/first/2")),
        *(("one", "0/first/0"), ("one", "0/first/1"), ("one", "0/first/2")),
        *(("ours", "0/0/0"), ("one", "0/0/0")),
    ]
    assert [(each.server, each.number) for each in found.first] == [
        *(("ours", 0), ("ours", 1), ("ours", 2)),
        *(("one", 0), ("one", 1), ("one", 2)),
    ]
    assert len(starter.events) == 4


def test_servers_that_run_alone_are_started_in_each_round(asked: list[tuple[str, str, str]], starter: Starter) -> None:
    found = measured(compare_apart, ["ours", "one"], Shape(LOADS[:1], rounds=2))

    order = ("ours", "one", "one", "ours")
    assert starter.events == [f"{name} {change}" for name in order for change in ("up", "down")]
    assert [(each.server, each.number) for each in found.loads] == [("ours", 0), ("one", 0), ("one", 1), ("ours", 1)]
    assert len(found.starts) == 4
    assert len(asked) == 8


@pytest.mark.parametrize("run", [compare_together, compare_apart])
@pytest.mark.usefixtures("asked")
def test_baseline_that_does_not_start_is_left_out(run: Callable[..., Any], starter: Starter) -> None:
    starter.broken = ("one",)

    found = measured(run, ["ours", "one", "two"], Shape(LOADS[:1], rounds=1))

    assert found.failures == ("one: it ended",)
    assert [each.server for each in found.loads] == ["ours", "two"]


@pytest.mark.parametrize("run", [compare_together, compare_apart])
@pytest.mark.usefixtures("asked")
def test_comparison_without_this_service_is_refused(run: Callable[..., Any], starter: Starter) -> None:
    starter.broken = ("ours",)

    with pytest.raises(EngineStartError):
        measured(run, ["ours", "one"], Shape(LOADS))


@pytest.mark.usefixtures("asked")
def test_output_of_servers_goes_into_the_folder_by_name(starter: Starter, tmp_path: Path) -> None:
    starter.broken = ("vllm serve, 4 API servers",)

    measured(compare_together, ["ours", "vllm serve, 4 API servers"], Shape(LOADS, rounds=1), logs=tmp_path)

    assert starter.logs == [tmp_path / "ours.log", tmp_path / "vllm-serve-4-API-servers.log"]


def test_compilations_of_a_load_are_counted(asked: list[tuple[str, str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([Compilations(3, 1.0), Compilations(10, 2.5), Compilations(10, 2.5), Compilations(10, 2.5)])
    monkeypatch.setattr(compilations, "count", lambda *_: next(counts))
    monkeypatch.setattr(compilations, "_SETTLE_S", 0.0)
    report = Calls()

    found = measure_running({"here": "there"}, "m", Shape(LOADS, rounds=1), report, Calls())

    assert [(each.compilations, each.compilation_s) for each in found.loads] == [(7, 1.5), (0, 0.0)]
    assert [text for (text,) in report.made] == [
        "  1 stream, 16:8, here: 16 tok/s, TTFT 100.0 ms, 7 kernels compiled",
        "  8 streams, 16:8, here: 64 tok/s, TTFT 100.0 ms",
    ]
    assert len(asked) == 3


def test_failed_requests_are_reported_while_it_runs(
    asked: list[tuple[str, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = Calls()
    answers = iter(
        [
            Answers(),
            Answers(1.0, 2.0, failed=4, errors=["gone"]),
            Answers(1.0, 2.0, samples=[Sample(0.1, 1.0, 8)], failed=1, errors=["no room"]),
        ]
    )
    monkeypatch.setattr(token_load, "measure", lambda *_: next(answers))

    found = measure_running({"here": "there"}, "m", Shape(LOADS, rounds=1), report, Calls())

    assert [text.split(": ", 1)[1] for (text,) in report.made] == [
        "4 of 4 requests failed: gone",
        "8 tok/s, TTFT 100.0 ms; 1 of 2 requests failed: no room",
    ]
    assert found.failed == 5
    assert asked == []
