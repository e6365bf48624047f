"""What a part of the service costs: one server, asked in turn in two ways, with that part and without it.

The first token is timed with one stream, pair by pair of requests; the rate and the CPU time with many, pair by pair of
loads. A figure is the median over the differences within the pairs, so a slow minute of the machine meets both sides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any

from gptoss_bento.bench.frontend import BUSY, Load, summarize
from gptoss_bento.bench.servers import RunningServer
from gptoss_bento.bench.swarm import StreamLoad, Swarm

_WARM_UP_REQUESTS = 50
_BATCHES, _LEAST_OF_A_BATCH = 20, 20


@dataclass(frozen=True)
class Shape:
    """How much is asked of the server; `pairs` of requests for the first token, `rounds` of pairs of loads.

    `first_tokens` are those of an answer whose first token is timed.
    """

    pairs: int = 2000
    streams: int = 32
    rounds: int = 30
    requests_per_stream: int = 4
    max_tokens: int = 128
    clients: int = 1
    first_tokens: int = 2


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
    """Both ways through one server, with the part and without it."""

    shape: Shape
    full: Side
    reduced: Side


@dataclass(frozen=True)
class Ways:
    """The two ways.

    Attributes:
        names: of the way with the part, and of the one without it.
        loads: what is asked in either way, by the server, the tokens of an answer and the requests of a stream.
    """

    names: tuple[str, str]
    loads: Callable[[RunningServer, int, int], tuple[StreamLoad, StreamLoad]]


@dataclass(frozen=True)
class Limits:
    """What the part may cost: of the output tokens/s this ratio is left, and the first token is so much later."""

    least_ratio: float
    most_ms: float


def measure(
    server: RunningServer,
    ways: Ways,
    clients: Swarm,
    shape: Shape,
    report: Callable[[str], None],
    keep: Callable[[Measured], None],
) -> Measured:
    """Asks a running server in both ways.

    Args:
        report: is called with each step.
        keep: is given what there is after each round, so that a run that is broken off leaves its rounds.

    Raises:
        BenchmarkError: a request failed.
    """
    report(f"{shape.pairs} pairs of requests, one at a time")
    found = _first_tokens(server, ways, clients, shape)
    keep(found)
    for number in range(shape.rounds):
        report(f"{shape.streams} streams, round {number + 1} of {shape.rounds}")
        found = _with_loads(found, _round(number, server, ways, clients, shape))
        keep(found)
    return found


def _first_tokens(server: RunningServer, ways: Ways, clients: Swarm, shape: Shape) -> Measured:
    clients.run_in_turn(*ways.loads(server, shape.first_tokens, _WARM_UP_REQUESTS))
    timings = clients.run_in_turn(*ways.loads(server, shape.first_tokens, shape.pairs))
    for ask in ways.loads(server, shape.max_tokens, 1):
        clients.run(ask, shape.streams)  # warms up what follows
    return Measured(shape, *(Side(tuple(1000 * seconds for seconds in each.first_s)) for each in timings))


def _round(number: int, server: RunningServer, ways: Ways, clients: Swarm, shape: Shape) -> list[Load]:
    """One load each way, one right after the other; each way goes first in half of the rounds."""
    loads = ways.loads(server, shape.max_tokens, shape.requests_per_stream)
    sides = list(zip(ways.names, loads, strict=True))
    found = {}
    for name, ask in sides if number % 2 == 0 else reversed(sides):
        before = server.cpu()
        timings = clients.run(ask, shape.streams)
        used = server.cpu().since(before)
        found[name] = summarize(name, ask.route, True, shape.streams, timings, used, clients.processes)
    return [found[name] for name in ways.names]


def _with_loads(found: Measured, loads: Sequence[Load]) -> Measured:
    sides = zip((found.full, found.reduced), loads, strict=True)
    return Measured(found.shape, *(Side(side.first_ms, (*side.loads, load)) for side, load in sides))


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
    """One figure: the medians of either way, and what the part makes of it within a pair."""

    figure: str
    full: float
    reduced: float
    change: Estimate
    unit: str
    """Of `change`: ms, or nothing for a ratio."""


def rows(found: Measured) -> list[Row]:
    """One row a figure; differences in ms, ratios of the rates."""
    shape = found.shape
    at = f"{shape.streams} streams"
    first = found.full.first_ms, found.reduced.first_ms
    table = [_differences("first token, ms, 1 stream", *first)]
    if len(first[0]) >= _BATCHES * _LEAST_OF_A_BATCH:
        table.append(_differences("the same, fastest tenth", *map(_fastest, first)))
    if found.full.loads:
        pairs = found.full.tokens_per_s, found.reduced.tokens_per_s
        ratios = Estimate.of([mine / other for mine, other in zip(*pairs, strict=True)])
        table.append(Row(f"output tokens/s, {at}", median(pairs[0]), median(pairs[1]), ratios, ""))
        cpu = found.full.api_ms(shape.max_tokens), found.reduced.api_ms(shape.max_tokens)
        table.append(_differences(f"API server, CPU ms a request, {at}", *cpu))
    return table


def _differences(figure: str, full: Sequence[float], reduced: Sequence[float]) -> Row:
    change = Estimate.of([mine - other for mine, other in zip(full, reduced, strict=True)])
    return Row(figure, median(full), median(reduced), change, "ms")


def _fastest(values: Sequence[float]) -> list[float]:
    """Of each batch of pairs the first decile: what there is where nothing else takes the cores."""
    size = len(values) // _BATCHES
    return [quantiles(values[at * size : (at + 1) * size], n=10)[0] for at in range(_BATCHES)]


def as_json(found: Measured) -> dict[str, Any]:
    """Everything measured, and the rows."""
    return {"rows": [asdict(row) for row in rows(found)], **asdict(found)}


def notes(found: Measured, limits: Limits) -> list[str]:
    """What must be known to read the table."""
    shape = found.shape
    lines = [
        f"Medians over {shape.pairs} pairs of requests and {len(found.full.loads)} pairs of loads. Wanted: at most "
        f"{limits.most_ms} ms to the first token, a ratio of tokens/s of at least {limits.least_ratio}."
    ]
    busiest = max((load.client_busy for side in (found.full, found.reduced) for load in side.loads), default=0.0)
    if busiest > BUSY:
        lines.append(f"warning: a client process was busy for {busiest:.0%} of the time. Ask with more: --clients.")
    return lines
