"""A comparison as a picture (SVG): output tokens/s and the time to the first token over the number of streams. Pure.

One row of panels for each length of prompt and answer. The colours are Okabe and Ito's, which people with any colour
vision distinguish; the picture follows the reader's light or dark scheme.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from statistics import median

from gptoss_bento.bench.figures import Figures
from gptoss_bento.bench.report import Comparison

_WIDTH, _HEIGHT = 440, 260  # of a panel's plot, in pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 74, 22, 40, 58  # around it
_LEGEND_LINE = 22
_COLOURS = (("#0072B2", "#56B4E9"), ("#D55E00", "#E69F00"), ("#009E73", "#2FC597"), ("#AA4499", "#DD88CC"))
_MARKS = ("M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0", "M-4,-4h8v8h-8z", "M0,-5.5L5,4h-10z", "M0,-6L6,0L0,6L-6,0z")
_STYLE = """
svg{font-family:system-ui,sans-serif;font-size:12px}
.title{font-size:14px;font-weight:600}
.grid,.axis{stroke-width:1}
.series{fill:none;stroke-width:2}
"""
# Paper, text, lesser text, lines: light and dark.
_SCHEMES = (("#ffffff", "#1b1b1b", "#595959", "#d9d9d9"), ("#16181c", "#ececec", "#a8adb5", "#383c44"))


@dataclass(frozen=True)
class Panel:
    """One picture: values of each server over numbers of streams; `logarithmic` is the scale upwards."""

    title: str
    upwards: str
    streams: tuple[int, ...]
    series: Mapping[str, Mapping[int, float]]
    logarithmic: bool = False


def svg(found: Comparison) -> str:
    """The picture; medians over the rounds."""
    rows = [_panels(found, lengths, loads) for lengths, loads in _by_lengths(found.loads).items()]
    cell = (_LEFT + _WIDTH + _RIGHT, _TOP + _HEIGHT + _BOTTOM)
    width, legend = 2 * cell[0], 14 + _LEGEND_LINE * len(found.servers)
    height = legend + cell[1] * len(rows)
    parts = [_legend(found.servers)]
    for row, panels in enumerate(rows):
        for column, panel in enumerate(panels):
            position = f"translate({column * cell[0] + _LEFT},{legend + row * cell[1] + _TOP})"
            parts.append(f'<g transform="{position}">{"".join(_drawn(panel, found.servers))}</g>')
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    paper = '<rect class="paper" width="100%" height="100%"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n<title>{escape(_summary(found))}</title>\n'
        f"<style>{_styles(len(found.servers))}</style>\n{paper}\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _summary(found: Comparison) -> str:
    return f"Output tokens per second and time to the first token over streams: {', '.join(found.servers)}"


def _styles(servers: int) -> str:
    return f"{_STYLE}{_colours(0, servers)}\n@media (prefers-color-scheme:dark){{{_colours(1, servers)}}}"


def _colours(scheme: int, servers: int) -> str:
    paper, ink, soft, line = _SCHEMES[scheme]
    common = f".paper{{fill:{paper}}}text{{fill:{ink}}}.soft{{fill:{soft}}}.grid{{stroke:{line}}}.axis{{stroke:{soft}}}"
    series = [_COLOURS[index % len(_COLOURS)][scheme] for index in range(servers)]
    return common + "".join(f".s{i}{{stroke:{colour}}}.m{i}{{fill:{colour}}}" for i, colour in enumerate(series))


def _by_lengths(loads: Sequence[Figures]) -> dict[tuple[int, int], list[Figures]]:
    found: dict[tuple[int, int], list[Figures]] = {}
    for figures in loads:
        if figures.completed:
            found.setdefault((figures.input_tokens, figures.output_tokens), []).append(figures)
    return found


def _panels(found: Comparison, lengths: tuple[int, int], loads: Sequence[Figures]) -> tuple[Panel, Panel]:
    streams = tuple(sorted({figures.streams for figures in loads}))
    at = f"{lengths[0]} tokens in, {lengths[1]} out"
    rates = {server: _medians(loads, server, "output_throughput") for server in found.servers}
    first = {server: _medians(loads, server, "median_ttft_ms") for server in found.servers}
    return (
        Panel(f"Output tokens/s, {at}", "output tokens/s", streams, rates),
        Panel(f"First token p50, {at}", "time to first token p50, ms (log)", streams, first, logarithmic=True),
    )


def _medians(loads: Sequence[Figures], server: str, key: str) -> dict[int, float]:
    values: dict[int, list[float]] = {}
    for figures in loads:
        if figures.server == server:
            values.setdefault(figures.streams, []).append(figures.values[key])
    return {streams: median(of_rounds) for streams, of_rounds in values.items()}


def _legend(servers: Sequence[str]) -> str:
    lines = []
    for index, server in enumerate(servers):
        y = 20 + _LEGEND_LINE * index
        line = f'<path class="series s{index}" d="M{_LEFT},{y}h28"/>{_mark(index, _LEFT + 14, y)}'
        lines.append(f'{line}<text x="{_LEFT + 38}" y="{y + 4}">{escape(server)}</text>')
    return "".join(lines)


def _mark(index: int, x: float, y: float, hint: str = "") -> str:
    shape = _MARKS[index % len(_MARKS)]
    title = f"<title>{escape(hint)}</title>" if hint else ""
    return f'<path class="m{index}" transform="translate({x:.1f},{y:.1f})" d="{shape}">{title}</path>'


# --- one panel -------------------------------------------------------------------------------------------------------


def _drawn(panel: Panel, servers: Sequence[str]) -> Iterator[str]:
    values = [value for series in panel.series.values() for value in series.values()]
    ticks = _decades(values) if panel.logarithmic else _steps(max(values, default=1.0))
    yield f'<text class="title" x="0" y="-16">{escape(panel.title)}</text>'
    for tick in ticks:
        y = _up(tick, ticks, logarithmic=panel.logarithmic)
        yield f'<path class="grid" d="M0,{y:.1f}h{_WIDTH}"/>'
        yield f'<text class="soft" x="-8" y="{y + 4:.1f}" text-anchor="end">{tick:,g}</text>'
    yield f'<path class="axis" d="M0,{_HEIGHT}h{_WIDTH}"/>'
    turned = f'transform="translate(-56,{_HEIGHT / 2}) rotate(-90)" text-anchor="middle"'
    yield f'<text class="soft" {turned}>{escape(panel.upwards)}</text>'
    yield f'<text class="soft" x="{_WIDTH / 2}" y="{_HEIGHT + 42}" text-anchor="middle">streams at a time</text>'
    for streams, x in _columns(panel).items():
        yield f'<text class="soft" x="{x:.1f}" y="{_HEIGHT + 20}" text-anchor="middle">{streams}</text>'
    for index, server in enumerate(servers):
        yield from _series(panel, index, server, ticks)


def _series(panel: Panel, index: int, server: str, ticks: Sequence[float]) -> Iterator[str]:
    columns = _columns(panel)
    values = sorted(panel.series[server].items())
    points = [(columns[streams], _up(value, ticks, logarithmic=panel.logarithmic)) for streams, value in values]
    if len(points) > 1:
        way = "L".join(f"{x:.1f},{y:.1f}" for x, y in points)
        yield f'<path class="series s{index}" d="M{way}"/>'
    for (streams, value), (x, y) in zip(values, points, strict=True):
        yield _mark(index, x, y, f"{server}, {streams} streams: {value:,.1f}")


def _columns(panel: Panel) -> dict[int, float]:
    """Where each number of streams is: one as far from the next as any other, since they grow by multiples."""
    width = _WIDTH / len(panel.streams)
    return {streams: width * (index + 0.5) for index, streams in enumerate(panel.streams)}


def _up(value: float, ticks: Sequence[float], *, logarithmic: bool) -> float:
    """How far down from the top of the plot a value is."""
    scale = (lambda each: math.log10(max(each, 1e-9))) if logarithmic else float
    low, high = scale(ticks[0]), scale(ticks[-1])
    return _HEIGHT * (1 - (scale(value) - low) / (high - low))


def _steps(highest: float) -> list[float]:
    """Four to ten round numbers from 0 to above the highest value."""
    rough = max(highest, 1e-9) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(multiple * power for multiple in (1, 2, 5, 10) if multiple * power >= rough)
    return [step * number for number in range(math.ceil(highest / step) + 1)]


def _decades(values: Sequence[float]) -> list[float]:
    """1, 2 and 5 times the powers of ten, from below the smallest to above the largest value."""
    low, high = min(values, default=1.0), max(values, default=10.0)
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    marks = [multiple * 10.0**power for power in powers for multiple in (1, 2, 5)]
    first = max(index for index, mark in enumerate(marks) if mark <= low)
    last = min(index for index, mark in enumerate(marks) if mark >= high)
    return marks[first : max(last, first + 1) + 1]
