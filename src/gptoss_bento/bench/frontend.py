"""The HTTP side alone: this service and another server, each before vLLM's engine core without a model.

The other one is bare vLLM's API server, this service with one worker, or the service of another checkout. Both run at
the same time and are loaded in turn, so that a slow minute of the machine meets both; the one that is not asked sleeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from gptoss_bento.bench import servers
from gptoss_bento.bench.baselines import BARE, OURS, Candidate
from gptoss_bento.bench.checkout import Checkout, differences
from gptoss_bento.bench.load import p99
from gptoss_bento.bench.report import Row, compared
from gptoss_bento.bench.servers import Cpu, RunningServer
from gptoss_bento.bench.swarm import Route, StreamLoad, Swarm, Timings, swarm
from gptoss_bento.paths import ROOT

EXECUTOR = "gptoss_bento.bench.instant_executor.InstantExecutor"
_WARM_UP_STREAMS = 16
BUSY = 0.8  # of a client process's time, from which on it may be what is measured


class Baseline(StrEnum):
    """What this service is compared with, beside other checkouts."""

    VLLM = "vllm"
    ONE_WORKER = "one-worker"

    @property
    def server(self) -> str:
        return {"vllm": BARE, "one-worker": "one worker"}[self.value]


@dataclass(frozen=True)
class Shape:
    """How much is asked of a server.

    `workers` are API processes over one engine, bare vLLM's as well; `clients` are the processes that ask; `step_ms` is
    the time from step to step of the engine, 0: as fast as it goes. A round gives either server each load in several
    `turns`, one after the other, because the speed of a shared machine changes from second to second.
    """

    streams: tuple[int, ...] = (64, 256, 1024)
    routes: tuple[Route, ...] = (Route.COMPLETIONS,)
    max_tokens: int = 128
    requests_per_stream: int = 2
    rounds: int = 5
    turns: int = 4
    workers: int = 1
    clients: int = 2
    step_ms: float = 0
    against: Baseline | Checkout = Baseline.VLLM

    def loads(self) -> list[tuple[Route, bool, int]]:
        """Route, whether it streams, and how many streams, in the order of the report."""
        return [(route, streaming, n) for route in self.routes for streaming in (True, False) for n in self.streams]


@dataclass(frozen=True)
class Load:
    """What one load gave. CPU seconds are for a million output tokens; `gap` is the time between two messages.

    Attributes:
        client_busy: the share of the time for which a client process was computing.
    """

    server: str
    route: Route
    streaming: bool
    streams: int
    tokens: int
    tokens_per_s: float
    tokens_per_message: float
    api_cpu_s: float
    engine_cpu_s: float
    client_cpu_s: float
    client_busy: float
    first_median_ms: float
    first_p99_ms: float
    gap_median_ms: float
    gap_p99_ms: float
    whole_median_ms: float
    whole_p99_ms: float


@dataclass(frozen=True)
class Measured:
    """All rounds: in each, every load once on either server.

    Attributes:
        differences: what another checkout plans otherwise, so that more than its code differs.
    """

    shape: Shape
    ours: tuple[tuple[Load, ...], ...]
    baseline: tuple[tuple[Load, ...], ...]
    differences: tuple[str, ...] = ()


def compare(
    argv: Sequence[str],
    variables: dict[str, str],
    model: str,
    shape: Shape,
    report: Callable[[str], None],
    keep: Callable[[Measured], None],
) -> Measured:
    """Starts both servers and loads them in turn.

    Args:
        argv: vLLM's arguments as this service plans them, with `EXECUTOR`; bare vLLM gets the same. Another checkout
            plans by itself, from the same variables.
        variables: what both need in their environment, beside the number of workers.
        report: is called with each step.
        keep: is given what there is after each round, so that a run that is broken off leaves its rounds.

    Raises:
        EngineStartError: one of them did not start.
        BenchmarkError: a request failed, or the other checkout refuses the variables.
    """
    differ = _reported_differences(variables, shape, report)
    baseline = shape.against.server
    found: dict[str, list[tuple[Load, ...]]] = {OURS: [], baseline: []}
    with ExitStack() as stack:
        clients = stack.enter_context(swarm(shape.clients))
        running = {}
        store = Path(stack.enter_context(TemporaryDirectory()), "jobs.sqlite3")
        for candidate in _candidates(argv, variables, shape, store):
            report(f"starting {candidate.name}")
            running[candidate.name] = stack.enter_context(candidate.started())
        for server in running.values():
            _warm_up(server, model, clients, shape)
        for number in range(shape.rounds):
            report(f"round {number + 1} of {shape.rounds}")
            for name, loads in _round(number, running, model, clients, shape).items():
                found[name].append(loads)
            measured = Measured(shape, tuple(found[OURS]), tuple(found[baseline]), differ)
            keep(measured)
    return measured


def _reported_differences(variables: dict[str, str], shape: Shape, report: Callable[[str], None]) -> tuple[str, ...]:
    """What another checkout plans otherwise, before minutes are spent on it. Bare vLLM gets what is planned here."""
    if not isinstance(shape.against, Checkout):
        return ()
    found = differences(Checkout(ROOT).plan(variables), shape.against.plan(variables))
    for difference in found:
        report(f"The plans differ: {difference}.")
    return tuple(found)


def _candidates(argv: Sequence[str], variables: dict[str, str], shape: Shape, store: Path) -> list[Candidate]:
    """Both servers. Our service gets the number of workers by a variable, vLLM's by an argument.

    Args:
        store: for the jobs of another checkout, whose schema may differ.
    """
    planned = variables | {"API_WORKERS": str(shape.workers)}
    ours = Candidate(OURS, servers.ours, planned)
    name = shape.against.server
    if isinstance(shape.against, Checkout):
        own = {**shape.against.variables, "JOB_STORE_URL": f"sqlite:///{store}"}
        return [ours, Candidate(name, servers.ours, planned | own, shape.against.folder)]
    if shape.against is Baseline.ONE_WORKER:
        return [ours, Candidate(name, servers.ours, planned | {"API_WORKERS": "1"})]
    return [ours, Candidate(name, partial(servers.bare_vllm, argv=argv, workers=shape.workers), planned)]


def _warm_up(server: RunningServer, model: str, clients: Swarm, shape: Shape) -> None:
    for route, streaming, _ in shape.loads():
        clients.run(StreamLoad(server.base_url, model, route, streaming, 8, 1), _WARM_UP_STREAMS)


def _round(
    number: int, running: dict[str, RunningServer], model: str, clients: Swarm, shape: Shape
) -> dict[str, tuple[Load, ...]]:
    """Each load on both servers; each goes first in half of the turns."""
    names = list(running)
    found: dict[str, list[Load]] = {name: [] for name in names}
    for route, streaming, streams in shape.loads():
        timings = {name: Timings() for name in names}
        cpu = {name: Cpu(0, 0) for name in names}
        for turn in range(shape.turns):
            for name in names if (number + turn) % 2 == 0 else reversed(names):
                server = running[name]
                before = server.cpu()
                ask = StreamLoad(server.base_url, model, route, streaming, shape.max_tokens, shape.requests_per_stream)
                timings[name].then(clients.run(ask, streams))
                cpu[name] += server.cpu().since(before)
        for name in names:
            load = summarize(name, route, streaming, streams, timings[name], cpu[name], clients.processes)
            found[name].append(load)
    return {name: tuple(loads) for name, loads in found.items()}


def summarize(
    server: str, route: Route, streaming: bool, streams: int, timings: Timings, cpu: Cpu, processes: int
) -> Load:
    """Rates over the whole time, and the middle and the end of what was timed."""
    millions = timings.tokens / 1e6
    gaps = timings.gaps_s or [0.0]
    return Load(
        server=server,
        route=route,
        streaming=streaming,
        streams=streams,
        tokens=timings.tokens,
        tokens_per_s=timings.tokens / timings.seconds,
        tokens_per_message=timings.tokens / timings.messages,
        api_cpu_s=cpu.api_s / millions,
        engine_cpu_s=cpu.engine_s / millions,
        client_cpu_s=timings.cpu_s / millions,
        client_busy=timings.cpu_s / timings.seconds / processes,
        first_median_ms=1000 * median(timings.first_s),
        first_p99_ms=1000 * p99(timings.first_s),
        gap_median_ms=1000 * median(gaps),
        gap_p99_ms=1000 * p99(gaps),
        whole_median_ms=1000 * median(timings.whole_s),
        whole_p99_ms=1000 * p99(timings.whole_s),
    )


# --- for the eye -----------------------------------------------------------------------------------------------------


def rows(found: Measured) -> list[Row]:
    """One row per figure, in the order of the loads."""
    return compared(map(_figures, found.ours), map(_figures, found.baseline))


def as_json(found: Measured) -> dict[str, Any]:
    """Everything measured, and the rows."""
    return {
        "rows": [asdict(row) for row in rows(found)],
        "shape": {**asdict(found.shape), "against": str(found.shape.against)},
        "notes": notes(found),
        OURS: _plain(found.ours),
        found.shape.against.server: _plain(found.baseline),
    }


def _plain(rounds: Sequence[Sequence[Load]]) -> list[list[dict[str, Any]]]:
    return [[asdict(load) for load in loads] for loads in rounds]


def _figures(loads: Sequence[Load]) -> Iterator[tuple[str, float]]:
    for load in loads:
        at = f"{load.route}{'' if load.streaming else ' in one piece'}, {load.streams}"
        yield f"output tokens/s, {at}", load.tokens_per_s
        yield f"API server, CPU s per million tokens, {at}", load.api_cpu_s
        yield f"engine, CPU s per million tokens, {at}", load.engine_cpu_s
        yield f"clients, CPU s per million tokens, {at}", load.client_cpu_s
        yield f"whole answer, p50 ms, {at}", load.whole_median_ms
        yield f"whole answer, p99 ms, {at}", load.whole_p99_ms
        if load.streaming:
            yield f"first token, p50 ms, {at}", load.first_median_ms
            yield f"first token, p99 ms, {at}", load.first_p99_ms
            yield f"between messages, p50 ms, {at}", load.gap_median_ms
            yield f"between messages, p99 ms, {at}", load.gap_p99_ms
            yield f"tokens a message, {at}", load.tokens_per_message


def notes(found: Measured) -> list[str]:
    """What must be known to read the table."""
    busiest = max(load.client_busy for rounds in (found.ours, found.baseline) for loads in rounds for load in loads)
    lines = [f"Medians of {len(found.ours)} rounds. A client process was busy for {busiest:.0%} of the time at most."]
    if busiest > BUSY:
        lines.append("warning: the clients may be what was measured. Ask with more of them: --clients.")
    return [*lines, *(f"The plans differ: {difference}." for difference in found.differences)]
