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
    """One figure: the median over all runs of either server, and that of the ratios ours / baseline within a run.

    A run measures both one after the other, so that what changes from run to run, the machine's speed, is not in it.
    """

    figure: str
    ours: float
    baseline: float | None
    ratio: float | None


Figures = Iterable[tuple[str, float]]
"""Names and values of one run."""


def rows(ours: Sequence[Run], bare: Sequence[Run]) -> list[Row]:
    """One row per figure, in the order of the measurements."""
    return compared(map(_figures, ours), map(_figures, bare))


def compared(ours: Iterable[Figures], baseline: Iterable[Figures]) -> list[Row]:
    """One row per figure. The n-th runs of both servers belong together."""
    mine, theirs = _by_figure(ours), _by_figure(baseline)
    return [_row(figure, values, theirs.get(figure, [])) for figure, values in mine.items()]


def as_json(ours: Sequence[Run], bare: Sequence[Run]) -> dict[str, Any]:
    """Everything measured, and the rows."""
    return {
        "rows": [asdict(row) for row in rows(ours, bare)],
        "runs": [asdict(run) for run in (*ours, *bare)],
    }


def _by_figure(runs: Iterable[Figures]) -> dict[str, list[float]]:
    figures: dict[str, list[float]] = {}
    for run in runs:
        for figure, value in run:
            figures.setdefault(figure, []).append(value)
    return figures


def _row(figure: str, ours: Sequence[float], baseline: Sequence[float]) -> Row:
    ratios = [mine / other for mine, other in zip(ours, baseline, strict=False) if other]
    return Row(figure, median(ours), median(baseline) if baseline else None, median(ratios) if ratios else None)


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
