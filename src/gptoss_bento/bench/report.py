"""From measurements to medians and ratios. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from gptoss_bento.bench.load import Load
from gptoss_bento.bench.servers import Memory


@dataclass(frozen=True)
class Run:
    """One server, once: how long it took, what it gave at each number of streams, what it held afterwards."""

    server: str
    ready_s: float | None
    loads: tuple[Load, ...]
    memory: Memory | None


@dataclass(frozen=True)
class Row:
    """One figure: the median over all runs of either server. `ratio` is ours / bare vLLM."""

    figure: str
    ours: float
    bare: float | None

    @property
    def ratio(self) -> float | None:
        return self.ours / self.bare if self.bare else None


Figures = Iterable[tuple[str, float]]
"""Names and values of one run."""


def rows(ours: Sequence[Run], bare: Sequence[Run]) -> list[Row]:
    """One row per figure, in the order of the measurements."""
    return compared(map(_figures, ours), map(_figures, bare))


def compared(ours: Iterable[Figures], bare: Iterable[Figures]) -> list[Row]:
    """One row per figure: its median over the runs of either server."""
    mine, theirs = _medians(ours), _medians(bare)
    return [Row(figure, value, theirs.get(figure)) for figure, value in mine.items()]


def as_json(ours: Sequence[Run], bare: Sequence[Run]) -> dict[str, Any]:
    """Everything measured, and the rows."""
    return {
        "rows": [{**asdict(row), "ratio": row.ratio} for row in rows(ours, bare)],
        "runs": [asdict(run) for run in (*ours, *bare)],
    }


def _medians(runs: Iterable[Figures]) -> dict[str, float]:
    figures: dict[str, list[float]] = {}
    for run in runs:
        for figure, value in run:
            figures.setdefault(figure, []).append(value)
    return {figure: median(values) for figure, values in figures.items()}


def _figures(run: Run) -> Iterator[tuple[str, float]]:
    if run.ready_s is not None:
        yield "time to ready, s", run.ready_s
    for load in run.loads:
        at = f"{load.streams} stream{'s' if load.streams > 1 else ''}"
        yield f"output tokens/s, {at}", load.tokens_per_s
        yield f"first token, median ms, {at}", load.first_token_median_ms
        yield f"first token, p99 ms, {at}", load.first_token_p99_ms
        yield f"time per output token, median ms, {at}", load.per_token_median_ms
    if run.memory is not None:
        yield "resident memory, MiB", run.memory.resident_mib
        yield "proportional memory, MiB", run.memory.proportional_mib
