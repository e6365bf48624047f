"""The benchmark itself: which server runs when, and under which load."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import httpx
import psutil

from gptoss_bento.bench import compilations, token_load
from gptoss_bento.bench.baselines import Candidate
from gptoss_bento.bench.figures import Figures, summarize
from gptoss_bento.bench.report import Comparison, Start
from gptoss_bento.bench.servers import Memory, RunningServer
from gptoss_bento.bench.swarm import Swarm, swarm
from gptoss_bento.bench.token_load import Lengths, Target, TokenLoad
from gptoss_bento.errors import EngineStartError

_WARM_UP = TokenLoad(4, 8, Lengths(48, 16))


@dataclass(frozen=True)
class FirstLoads:
    """A load that is put on a server as soon as it is ready, and again: the first beside the last of them."""

    load: TokenLoad
    times: int = 10


@dataclass(frozen=True)
class Shape:
    """How much is asked of a server, and how often.

    Args:
        rounds: how often each server gets each load; one at a time, how often each is started.
        clients: processes that ask.
        percentiles: of the latencies, from 0 to 100.
        first: with it, there is no other warm-up.
        seed: decides the prompts.
    """

    loads: tuple[TokenLoad, ...]
    rounds: int = 3
    clients: int = 1
    percentiles: tuple[float, ...] = (50, 90, 99)
    first: FirstLoads | None = None
    new_connections: bool = False
    seed: int = 0


_Item = TypeVar("_Item")
Report = Callable[[str], None]
Keep = Callable[[Comparison], None]


def measure_running(urls: Mapping[str, str], model: str | None, shape: Shape, report: Report, keep: Keep) -> Comparison:
    """Measures servers that are there already, by name; each URL ends in /v1.

    Args:
        model: what it is called at all of them; None: the first that each lists.
        report: is called with each step.
        keep: is given what there is after each load, so that a run that is broken off leaves its figures.
    """
    with _bench(tuple(urls), shape, report, keep) as bench:
        targets = {name: bench.target(url, model or _first_model(url)) for name, url in urls.items()}
        for name, target in targets.items():
            bench.greet(name, target)
        for number in range(shape.rounds):
            bench.round(number, targets)
        return bench.found


def compare_together(
    candidates: Sequence[Candidate], model: str, shape: Shape, report: Report, keep: Keep, logs: Path | None = None
) -> Comparison:
    """Starts all servers, one after the other, and loads them in turn, each of them first in its share of the rounds.

    The speed of a machine that others use too changes within minutes, by more than the differences sought; here all
    of them meet the same minute. The machine must have room for all. A baseline that does not start is skipped.

    Args:
        candidates: this service first.
        model: what it is called at all of them.
        report: is called with each step.
        keep: is given what there is after each load, so that a run that is broken off leaves its figures.
        logs: a folder for the output of the servers; otherwise only that of one which failed stays.

    Raises:
        EngineStartError: this service did not start.
    """
    with _bench([each.name for each in candidates], shape, report, keep) as bench, ExitStack() as stack:
        running: dict[str, RunningServer] = {}
        for candidate in candidates:
            server = stack.enter_context(bench.started(candidate, logs))
            if server:
                running[candidate.name] = server
                bench.greet(candidate.name, bench.target(server.base_url, model))
        targets = {name: bench.target(server.base_url, model) for name, server in running.items()}
        for number in range(shape.rounds):
            bench.round(number, targets)
        for name, server in running.items():
            bench.weigh(name, server)
        return bench.found


def compare_apart(
    candidates: Sequence[Candidate], model: str, shape: Shape, report: Report, keep: Keep, logs: Path | None = None
) -> Comparison:
    """Starts and measures one server at a time, each as often as there are rounds, in an order that goes round.

    Arguments, and what is returned and raised, are those of `compare_together`.
    """
    with _bench([each.name for each in candidates], shape, report, keep) as bench:
        for number in range(shape.rounds):
            for candidate in _rotated(candidates, number):
                report(f"round {number + 1} of {shape.rounds}: {candidate.name}")
                with bench.started(candidate, logs) as server:
                    if server:
                        target = bench.target(server.base_url, model)
                        bench.greet(candidate.name, target)
                        bench.round(number, {candidate.name: target})
                        bench.weigh(candidate.name, server)
        return bench.found


class _Bench:
    """What is measured so far, and the clients that measure."""

    def __init__(self, names: Sequence[str], shape: Shape, clients: Swarm, report: Report, keep: Keep) -> None:
        self.found = Comparison(tuple(names), shape.percentiles)
        self._shape, self._clients, self._report, self._keep = shape, clients, report, keep

    def target(self, url: str, model: str) -> Target:
        return Target(url, model, new_connections=self._shape.new_connections)

    @contextmanager
    def started(self, candidate: Candidate, logs: Path | None) -> Iterator[RunningServer | None]:
        """The server, or None for a baseline that does not start."""
        self._report(f"starting {candidate.name}")
        log = logs and logs / f"{_file_name(candidate.name)}.log"
        with ExitStack() as stack:
            try:
                server = stack.enter_context(candidate.started(log))
            except EngineStartError as error:
                if candidate.name == self.found.servers[0]:
                    raise
                self._note(failures=(*self.found.failures, f"{candidate.name}: {error}"))
                self._report(f"{candidate.name} did not start; going on without it. {error}")
                server = None
            if server:
                self._report(f"{candidate.name} is ready after {server.ready_s:.1f} s")
                start = Start(candidate.name, server.ready_s, server.command)
                self._note(starts=(*self.found.starts, start))
            yield server

    def greet(self, name: str, target: Target) -> None:
        """The first loads of a server, or a warm-up."""
        first = self._shape.first
        if not first:
            token_load.measure(self._clients, target, _WARM_UP, f"{self._shape.seed}/warm-up")
            return
        for number in range(first.times):
            figures = self._load(name, target, first.load, number, f"first/{number}")
            self._note(first=(*self.found.first, figures))

    def round(self, number: int, targets: Mapping[str, Target]) -> None:
        """Each load on each server, one server right after the other."""
        order = _rotated(list(targets), number)
        for index, load in enumerate(self._shape.loads):
            for name in order:
                figures = self._load(name, targets[name], load, number, f"{number}/{index}")
                self._note(loads=(*self.found.loads, figures))

    def weigh(self, name: str, server: RunningServer) -> None:
        """Notes the memory of a server at its end. Some systems do not report it."""
        try:
            memory: Memory | None = server.memory()
        except psutil.Error:
            memory = None
        starts = list(self.found.starts)
        last = max(index for index, start in enumerate(starts) if start.server == name)
        starts[last] = replace(starts[last], memory=memory)
        self._note(starts=tuple(starts))

    def _load(self, name: str, target: Target, load: TokenLoad, number: int, seed: str) -> Figures:
        measure = partial(token_load.measure, self._clients, target, load, f"{self._shape.seed}/{seed}")
        answers, compiled = compilations.during(target.url, measure, target.key)
        figures = summarize(name, number, load, answers, self._shape.percentiles, self._clients.processes, compiled)
        self._report(f"  {load}, {name}: {_in_short(figures)}")
        return figures

    def _note(self, **changes: object) -> None:
        self.found = replace(self.found, **changes)  # type: ignore[arg-type]
        self._keep(self.found)


@contextmanager
def _bench(names: Sequence[str], shape: Shape, report: Report, keep: Keep) -> Iterator[_Bench]:
    with swarm(shape.clients) as clients:
        token_load.wake(clients)
        yield _Bench(names, shape, clients, report, keep)


def _first_model(url: str) -> str:
    models = httpx.get(f"{url}/models").raise_for_status().json()
    return str(models["data"][0]["id"])


def _rotated(items: Sequence[_Item], number: int) -> list[_Item]:
    """Each item is first in its share of the rounds."""
    start = number % len(items) if items else 0
    return [*items[start:], *items[:start]]


def _file_name(name: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in name).split())


def _in_short(figures: Figures) -> str:
    """For the eye that waits."""
    failed = f"{figures.failed} of {figures.completed + figures.failed} requests failed"
    if not figures.completed:
        return f"{failed}: {'; '.join(figures.errors[:1])}"
    values = figures.values
    text = f"{values['output_throughput']:,.0f} tok/s, TTFT {values['median_ttft_ms']:,.1f} ms"
    compiled = f", {figures.compilations} kernels compiled" if figures.compilations else ""
    return f"{text}{compiled}{f'; {failed}: {figures.errors[0]}' if figures.failed else ''}"
