from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest

from gptoss_bento.bench import compare, load, servers
from gptoss_bento.bench.compare import Shape, measure_running
from gptoss_bento.bench.load import Load
from gptoss_bento.bench.report import Run
from gptoss_bento.bench.servers import Memory
from tests.fakes import Calls

LOAD = Load(1, 12, 100.0, 20.0, 30.0, 5.0)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Keeps what is asked of the server."""
    calls = Calls(LOAD)

    async def measure(*args: object) -> Load:
        calls(*args)
        return LOAD

    monkeypatch.setattr(load, "measure", measure)
    return calls


@pytest.mark.parametrize(("streams", "requests"), [(1, 24), (4, 24), (5, 25), (32, 160)])
def test_more_streams_get_more_requests(streams: int, requests: int) -> None:
    assert Shape().requests(streams) == requests


def test_a_named_model_is_measured_after_a_warm_up(measured: Calls) -> None:
    run = measure_running("http://there/v1", "m", Shape((1, 8), max_tokens=9))

    assert run == Run("http://there/v1", None, (LOAD, LOAD), None)
    assert measured.made == [
        ("http://there/v1", "m", 4, 8, 16),
        ("http://there/v1", "m", 1, 24, 9),
        ("http://there/v1", "m", 8, 40, 9),
    ]


def test_without_a_name_the_first_model_that_the_server_lists_is_measured(
    measured: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def get(url: str) -> httpx.Response:
        asked.append(url)
        models = {"object": "list", "data": [{"id": "first"}, {"id": "second"}]}
        return httpx.Response(200, json=models, request=httpx.Request("GET", url))

    monkeypatch.setattr(httpx, "get", get)

    measure_running("http://there/v1", None, Shape((1,)))

    assert asked == ["http://there/v1/models"]
    assert {model for _, model, *_ in measured.made} == {"first"}


def test_a_server_that_lists_no_models_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpx, "get", lambda url: httpx.Response(503, request=httpx.Request("GET", url)))

    with pytest.raises(httpx.HTTPStatusError):
        measure_running("http://there/v1", None, Shape())


def test_the_two_servers_are_measured_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(server: str, argv: Sequence[str], variables: dict[str, str], model: str, _: Shape) -> Run:
        assert (argv, variables, model) == (["--model=m"], {"PROFILE": "demo"}, "name")
        return Run(server, 40.0, (LOAD,), None)

    monkeypatch.setattr(compare, "_run", run)
    tell = Calls()

    ours, bare = compare.compare(["--model=m"], {"PROFILE": "demo"}, "name", 3, Shape(), tell)

    assert ([run.server for run in ours], [run.server for run in bare]) == (["gptoss-bento"] * 3, ["vLLM"] * 3)
    assert [told.split(": ")[1] for (told,) in tell.made] == [
        *("gptoss-bento", "vLLM"),
        *("vLLM", "gptoss-bento"),
        *("gptoss-bento", "vLLM"),
    ]


@dataclass
class FakeServer:
    base_url: str
    ready_s: float = 40.0

    def memory(self) -> Memory:
        return Memory(3000.0, 2900.0)


def test_servers_that_run_together_are_loaded_in_alternating_order(
    measured: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def started(command: Callable[[int], Sequence[str]], variables: dict[str, str]) -> Iterator[FakeServer]:
        assert variables == {"PROFILE": "demo"}
        yield FakeServer("ours" if "bentoml" in command(1) else "bare")

    monkeypatch.setattr(servers, "started", started)
    shape = Shape((1, 8), max_tokens=9)

    ours, bare = compare.compare_together(["--model=m"], {"PROFILE": "demo"}, "m", 2, shape, Calls())

    assert [(url, streams) for url, _, streams, *_ in measured.made] == [
        *[("ours", 4), ("bare", 4)],  # both are warm before one is measured
        *[("ours", 1), ("bare", 1), ("ours", 8), ("bare", 8)],
        *[("bare", 1), ("ours", 1), ("bare", 8), ("ours", 8)],
    ]
    for name, runs in (("gptoss-bento", ours), ("vLLM", bare)):
        memory = Memory(3000.0, 2900.0)
        assert runs == [Run(name, 40.0, (LOAD, LOAD), memory), Run(name, None, (LOAD, LOAD), memory)]
