"""From measurements to medians and ratios. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from gptoss_bento.bench.figures import Figures, keys, label
from gptoss_bento.bench.servers import Memory

_COMPILED = {"compilations": "Kernels compiled meanwhile", "compilation_s": "Compiling meanwhile (s)"}
"""Fields of `Figures`, where a server counts them."""


@dataclass(frozen=True)
class Row:
    """One figure: the median over all runs of either server, and that of the ratios ours / baseline within a run.

    A run measures both one after the other, so that what changes from run to run, the machine's speed, is not in it.
    """

    figure: str
    ours: float
    baseline: float | None
    ratio: float | None


NamedValues = Iterable[tuple[str, float]]
"""Names and values of one run."""


def compared(ours: Iterable[NamedValues], baseline: Iterable[NamedValues]) -> list[Row]:
    """One row per figure. The n-th runs of both servers belong together."""
    mine, theirs = _by_figure(ours), _by_figure(baseline)
    return [_row(figure, values, theirs.get(figure, [])) for figure, values in mine.items()]


def _by_figure(runs: Iterable[NamedValues]) -> dict[str, list[float]]:
    figures: dict[str, list[float]] = {}
    for run in runs:
        for figure, value in run:
            figures.setdefault(figure, []).append(value)
    return figures


def _row(figure: str, ours: Sequence[float], baseline: Sequence[float]) -> Row:
    ratios = [mine / other for mine, other in zip(ours, baseline, strict=False) if other]
    return Row(figure, median(ours), median(baseline) if baseline else None, median(ratios) if ratios else None)


# --- several servers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """One start of a server: seconds until it answered, its command, and what it held at its end."""

    server: str
    ready_s: float
    command: tuple[str, ...]
    memory: Memory | None = None


@dataclass(frozen=True)
class Comparison:
    """All that was measured so far.

    Args:
        servers: their names; all others are compared with the first.
        loads: of all rounds.
        first: the loads right after ready.
        failures: why a server was left out.
    """

    servers: tuple[str, ...]
    percentiles: tuple[float, ...]
    starts: tuple[Start, ...] = ()
    loads: tuple[Figures, ...] = ()
    first: tuple[Figures, ...] = ()
    failures: tuple[str, ...] = ()

    @property
    def failed(self) -> int:
        """How many requests failed."""
        return sum(figures.failed for figures in (*self.first, *self.loads))


@dataclass(frozen=True)
class Cell:
    """A figure of one server: its values, one a round, their median, and the ratio of the first server to it.

    The ratio is the median of those within the rounds: what changes from round to round is not in it.
    """

    server: str
    values: tuple[float, ...]
    median: float
    ratio: float | None


@dataclass(frozen=True)
class Line:
    """One figure of all servers that have it."""

    key: str
    figure: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """The figures of one load."""

    title: str
    lines: tuple[Line, ...]


def tables(found: Comparison, latencies: Sequence[str]) -> list[Table]:
    """The starts, the first loads, and one table for each load.

    Args:
        latencies: which of `figures.LATENCIES`.
    """
    return [*_start_table(found), *_first_table(found), *_load_tables(found, latencies)]


def as_json(found: Comparison, about: dict[str, Any]) -> dict[str, Any]:
    """Everything measured, and the tables with all figures.

    Args:
        about: what else is to be known, such as versions and the machine.
    """
    return {
        **about,
        "servers": list(found.servers),
        "failures": list(found.failures),
        "failed_requests": found.failed,
        "tables": [asdict(table) for table in tables(found, ("ttft", "tpot", "itl", "e2el"))],
        "starts": [asdict(start) for start in found.starts],
        "first_loads": [figures.as_json() for figures in found.first],
        "loads": [figures.as_json() for figures in found.loads],
    }


def of_shape(loads: Iterable[Figures]) -> dict[tuple[int, int, int], list[Figures]]:
    """The loads by what was asked, in the order of the measurements."""
    found: dict[tuple[int, int, int], list[Figures]] = {}
    for figures in loads:
        found.setdefault(figures.shape, []).append(figures)
    return found


def title(shape: tuple[int, int, int]) -> str:
    """What was asked, for people."""
    streams, given, asked = shape
    return f"{streams} stream{'s' if streams > 1 else ''}, {given}:{asked} tokens"


def _start_table(found: Comparison) -> Iterator[Table]:
    ready, held = _Values(), _Values()
    for start in found.starts:
        ready.add(start.server, len(ready.of(start.server)), start.ready_s)
        if start.memory:
            held.add(start.server, len(held.of(start.server)), start.memory.proportional_mib)
    rows = [("ready_s", "Time to ready (s)", ready), ("memory_mib", "Main memory, proportional (MiB)", held)]
    if lines := [line for each in rows if (line := _line(*each, found.servers))]:
        yield Table("start", tuple(lines))


def _first_table(found: Comparison) -> Iterator[Table]:
    """The first load after ready, and the last of those that were the same."""
    for shape, loads in of_shape(found.first).items():
        last = max(figures.number for figures in loads)
        lines = []
        for number in dict.fromkeys((0, last)):
            name = _ordinal(number + 1)
            for key in ("output_throughput", "median_ttft_ms", "p99_ttft_ms", *_COMPILED):
                values = _values([each for each in loads if each.number == number], key)
                lines += [line for line in [_line(key, f"{name}: {_label(key)}", values, found.servers)] if line]
        yield Table(f"first loads after ready: {title(shape)}", tuple(lines))


def _load_tables(found: Comparison, latencies: Sequence[str]) -> Iterator[Table]:
    wanted = [*keys(latencies, found.percentiles), *_COMPILED]
    for shape, loads in of_shape(found.loads).items():
        lines = [_line(key, _label(key), _values(loads, key), found.servers) for key in wanted]
        yield Table(title(shape), tuple(line for line in lines if line))


def _label(key: str) -> str:
    return _COMPILED.get(key) or label(key)


class _Values:
    """One figure by server and round."""

    def __init__(self) -> None:
        self._found: dict[str, dict[int, float]] = {}

    def add(self, server: str, number: int, value: float) -> None:
        self._found.setdefault(server, {})[number] = value

    def of(self, server: str) -> dict[int, float]:
        return self._found.get(server, {})


def _values(loads: Iterable[Figures], key: str) -> _Values:
    found = _Values()
    for figures in loads:
        value = getattr(figures, key) if key in _COMPILED else figures.values.get(key)
        if value is not None:
            found.add(figures.server, figures.number, value)
    return found


def _line(key: str, figure: str, values: _Values, servers: Sequence[str]) -> Line | None:
    """None, if no server has that figure."""
    ours = values.of(servers[0])
    cells = [_cell(server, values.of(server), ours) for server in servers if values.of(server)]
    return Line(key, figure, tuple(cells)) if cells else None


def _cell(server: str, values: Mapping[int, float], ours: Mapping[int, float]) -> Cell:
    ratios = [ours[number] / value for number, value in values.items() if value and number in ours]
    return Cell(server, tuple(values.values()), median(values.values()), median(ratios) if ratios else None)


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending} load"
