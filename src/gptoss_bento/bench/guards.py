"""What keys and admission cost: one server, asked in turn with its guards and beside them (`bypass.py`).

The first token is timed with one stream, pair by pair of requests; the rate and the CPU time with many, pair by pair of
loads. A figure is the median over the differences within the pairs, so a slow minute of the machine meets both sides.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

from gptoss_bento.bench import bypass, servers
from gptoss_bento.bench.frontend import BUSY, Load, summarize
from gptoss_bento.bench.servers import RunningServer
from gptoss_bento.bench.swarm import Route, StreamLoad, Swarm, swarm

SERVICE = "gptoss_bento.bench.bypassed_service:GptOss"
GUARDED, UNGUARDED = "with guards", "without"
LEAST_RATIO, MOST_MS = 0.99, 0.3
"""What the guards may cost: 1 % of the output tokens/s, 0.3 ms to the first token."""

_KEYS = 10
_KEY = "bench-key-9"
_NEVER = 10**9  # a limit that no benchmark reaches
_LIMITS = {
    **dict.fromkeys(("requests_per_minute", "tokens_per_minute", "streams", "jobs", "max_tokens"), _NEVER),
    "reasoning_effort": "high",
}
_FIRST_TOKENS = 2  # of an answer whose first token is timed
_WARM_UP_REQUESTS = 50
_BATCHES, _LEAST_OF_A_BATCH = 20, 20


@dataclass(frozen=True)
class Shape:
    """How much is asked of the server; `pairs` of requests for the first token, `rounds` of pairs of loads."""

    pairs: int = 2000
    streams: int = 32
    rounds: int = 30
    requests_per_stream: int = 4
    max_tokens: int = 128
    clients: int = 1


@dataclass(frozen=True)
class Side:
    """The results of one way through the server, in the order of the pairs."""

    first_ms: tuple[float, ...]
    loads: tuple[Load, ...] = ()

    @property
    def tokens_per_s(self) -> list[float]:
        return [load.tokens_per_s for load in self.loads]

    def api_ms(self, max_tokens: int) -> list[float]:
        """CPU time of the API server for one request of so many tokens."""
        return [load.api_cpu_s / 1e6 * max_tokens * 1000 for load in self.loads]


@dataclass(frozen=True)
class Measured:
    """Both ways through one server."""

    shape: Shape
    guarded: Side
    unguarded: Side


def measure(
    variables: Mapping[str, str],
    model: str,
    shape: Shape,
    report: Callable[[str], None],
    keep: Callable[[Measured], None],
) -> Measured:
    """Starts the service with keys that have every limit and asks it both ways.

    Args:
        variables: what the service needs in its environment, beside the keys.
        report: is called with each step.
        keep: is given what there is after each round, so that a run that is broken off leaves its rounds.

    Raises:
        EngineStartError: the service did not start.
        BenchmarkError: a request failed.
    """
    command = partial(servers.ours, service=SERVICE)
    with _keys() as file, swarm(shape.clients) as clients:
        report("starting the service")
        with servers.started(command, {**variables, "API_KEYS_FILE": str(file)}, _KEY) as server:
            report(f"{shape.pairs} pairs of requests, one at a time")
            found = _first_tokens(server, model, clients, shape)
            keep(found)
            for number in range(shape.rounds):
                report(f"{shape.streams} streams, round {number + 1} of {shape.rounds}")
                found = _with_loads(found, _round(number, server, model, clients, shape))
                keep(found)
    return found


@contextmanager
def _keys() -> Iterator[Path]:
    """A file of keys; the last is ours, and so the one with most keys to compare before it."""
    entries = {f"client-{number}": {"key": f"bench-key-{number}", **_LIMITS} for number in range(_KEYS)}
    with TemporaryDirectory() as folder:
        file = Path(folder, "keys.yaml")
        file.write_text(json.dumps(entries))
        yield file


def _loads(server: RunningServer, model: str, max_tokens: int, requests: int) -> tuple[StreamLoad, StreamLoad]:
    """The same with guards and without."""
    ask = partial(StreamLoad, server.base_url, model, Route.COMPLETIONS, True, max_tokens, requests)
    return ask(key=_KEY), ask(query=bypass.QUERY)


def _first_tokens(server: RunningServer, model: str, clients: Swarm, shape: Shape) -> Measured:
    clients.run_in_turn(*_loads(server, model, _FIRST_TOKENS, _WARM_UP_REQUESTS))
    timings = clients.run_in_turn(*_loads(server, model, _FIRST_TOKENS, shape.pairs))
    for ask in _loads(server, model, shape.max_tokens, 1):
        clients.run(ask, shape.streams)  # warms up what follows
    return Measured(shape, *(Side(tuple(1000 * seconds for seconds in each.first_s)) for each in timings))


def _round(number: int, server: RunningServer, model: str, clients: Swarm, shape: Shape) -> dict[str, Load]:
    """One load each way, one right after the other; each way goes first in half of the rounds."""
    loads = _loads(server, model, shape.max_tokens, shape.requests_per_stream)
    sides = list(zip((GUARDED, UNGUARDED), loads, strict=True))
    found = {}
    for name, ask in sides if number % 2 == 0 else reversed(sides):
        before = server.cpu()
        timings = clients.run(ask, shape.streams)
        used = server.cpu().since(before)
        found[name] = summarize(name, ask.route, True, shape.streams, timings, used, clients.processes)
    return found


def _with_loads(found: Measured, loads: Mapping[str, Load]) -> Measured:
    def added(side: Side, name: str) -> Side:
        return Side(side.first_ms, (*side.loads, loads[name]))

    return Measured(found.shape, added(found.guarded, GUARDED), added(found.unguarded, UNGUARDED))


# --- for the eye -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """A median, and its confidence interval of 95 %."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """By the ranks of the values, whatever their distribution; of fewer than six, the smallest and the largest."""
        ordered = sorted(values)
        rank = max(1, round(len(ordered) / 2 - 0.98 * math.sqrt(len(ordered))))
        return cls(median(ordered), ordered[rank - 1], ordered[-rank])


@dataclass(frozen=True)
class Row:
    """One figure: the medians of either way, and what the guards make of it within a pair."""

    figure: str
    guarded: float
    unguarded: float
    change: Estimate
    unit: str
    """Of `change`: ms, or nothing for a ratio."""


def rows(found: Measured) -> list[Row]:
    """One row a figure; differences in ms, ratios of the rates."""
    shape = found.shape
    at = f"{shape.streams} streams"
    first = found.guarded.first_ms, found.unguarded.first_ms
    table = [_differences("first token, ms, 1 stream", *first)]
    if len(first[0]) >= _BATCHES * _LEAST_OF_A_BATCH:
        table.append(_differences("the same, fastest tenth", *map(_fastest, first)))
    if found.guarded.loads:
        pairs = found.guarded.tokens_per_s, found.unguarded.tokens_per_s
        ratios = Estimate.of([mine / other for mine, other in zip(*pairs, strict=True)])
        table.append(Row(f"output tokens/s, {at}", median(pairs[0]), median(pairs[1]), ratios, ""))
        cpu = found.guarded.api_ms(shape.max_tokens), found.unguarded.api_ms(shape.max_tokens)
        table.append(_differences(f"API server, CPU ms a request, {at}", *cpu))
    return table


def _differences(figure: str, guarded: Sequence[float], unguarded: Sequence[float]) -> Row:
    change = Estimate.of([mine - other for mine, other in zip(guarded, unguarded, strict=True)])
    return Row(figure, median(guarded), median(unguarded), change, "ms")


def _fastest(values: Sequence[float]) -> list[float]:
    """Of each batch of pairs the first decile: what there is where nothing else takes the cores."""
    size = len(values) // _BATCHES
    return [quantiles(values[at * size : (at + 1) * size], n=10)[0] for at in range(_BATCHES)]


def as_json(found: Measured) -> dict[str, Any]:
    """Everything measured, and the rows."""
    return {"rows": [asdict(row) for row in rows(found)], **asdict(found)}


def notes(found: Measured) -> list[str]:
    """What must be known to read the table."""
    shape = found.shape
    lines = [
        f"Medians over {shape.pairs} pairs of requests and {len(found.guarded.loads)} pairs of loads. Wanted: at most "
        f"{MOST_MS} ms to the first token, a ratio of tokens/s of at least {LEAST_RATIO}."
    ]
    busiest = max((load.client_busy for side in (found.guarded, found.unguarded) for load in side.loads), default=0.0)
    if busiest > BUSY:
        lines.append(f"warning: a client process was busy for {busiest:.0%} of the time. Ask with more: --clients.")
    return lines
