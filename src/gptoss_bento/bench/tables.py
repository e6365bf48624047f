"""The tables of a comparison on a terminal, and the notes that a reader needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table as RichTable

from gptoss_bento.bench.report import Comparison, Line, Table, of_shape, tables, title

BUSY = 0.8  # of a client process's time, from which on it may be what is measured
_LATE_S = 0.05


def as_tables(found: Comparison, latencies: Sequence[str]) -> Iterator[RichTable]:
    """First the rounds side by side, as a table of a document would have them, then all figures with their ratios."""
    yield from _rounds(found)
    for table in tables(found, latencies):
        yield _figures(table, found.servers)


def _rounds(found: Comparison) -> Iterator[RichTable]:
    if not found.loads:
        return
    heads = [f"{server}, tok/s" for server in found.servers]
    table = RichTable(
        "load", *heads, "first token p50 (ms), same order", box=None, title="rounds", title_justify="left"
    )
    for shape, loads in of_shape(found.loads).items():
        rates = [[each.values["output_throughput"] for each in loads if each.server == name] for name in found.servers]
        first = [
            [each.values["median_ttft_ms"] for each in loads if each.server == name and each.completed]
            for name in found.servers
        ]
        cells = [" / ".join(f"{rate:,.0f}" for rate in of_server) for of_server in rates]
        last = "  ".join("–".join(_short(each) for each in of_server) or "-" for of_server in first)
        table.add_row(title(shape), *cells, last)
    yield table


def _figures(table: Table, servers: Sequence[str]) -> RichTable:
    heads = [head for server in servers[1:] for head in (server, "ratio")]
    shown = RichTable("figure", servers[0], *heads, box=None, title=table.title, title_justify="left")
    for line in table.lines:
        shown.add_row(line.figure, *_cells(line, servers))
    return shown


def _cells(line: Line, servers: Sequence[str]) -> Iterator[str]:
    cells = {cell.server: cell for cell in line.cells}
    for index, server in enumerate(servers):
        cell = cells.get(server)
        yield _number(cell.median) if cell else ""
        if index:
            yield f"{cell.ratio:.3f}" if cell and cell.ratio is not None else ""


def _short(milliseconds: float) -> str:
    return f"{milliseconds:,.0f}" if milliseconds >= 10 else f"{milliseconds:.1f}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.2f}"


def notes(found: Comparison) -> list[str]:
    """What must be known to read the tables, and what went wrong."""
    loads = (*found.first, *found.loads)
    if not loads:
        return list(found.failures)
    busiest = max(figures.client_busy for figures in loads)
    late = max(figures.late_s for figures in loads)
    lines = [f"Medians over the rounds. A client process was busy for {busiest:.0%} of the time at most."]
    if busiest > BUSY:
        lines.append("warning: the clients may be what was measured. Ask with more of them: --clients.")
    if late > _LATE_S:
        lines.append(f"warning: in one load a client process began {late:.2f} s after the others.")
    lines += [f"warning: {each}" for each in found.failures]
    if found.failed:
        texts = list(dict.fromkeys(text for figures in loads for text in figures.errors))
        lines.append(f"warning: {found.failed} requests failed: {' | '.join(texts[:3])}")
    return lines
