from __future__ import annotations

import json
from dataclasses import replace

from gptoss_bento.bench.report import Comparison, Line, Row, as_json, compared, tables
from tests.unit.bench.measured import OURS, SERVE, comparison, figures


def lines(found: Comparison, title: str) -> dict[str, Line]:
    """The lines of a table by their words."""
    (table,) = (table for table in tables(found, ["ttft"]) if table.title == title)
    return {line.figure: line for line in table.lines}


def ratios(line: Line) -> dict[str, float | None]:
    return {cell.server: cell.ratio for cell in line.cells}


def test_tables_are_in_the_order_of_the_measurements() -> None:
    assert [table.title for table in tables(comparison(), ["ttft"])] == [
        "start",
        "first loads after ready: 64 streams, 128:256 tokens",
        "1 stream, 128:256 tokens",
        "64 streams, 128:256 tokens",
    ]


def test_load_has_throughputs_and_the_latencies_that_are_asked_for() -> None:
    assert list(lines(comparison(), "1 stream, 128:256 tokens")) == [
        "Request throughput (req/s)",
        "Output token throughput (tok/s)",
        "Total token throughput (tok/s)",
        "Mean TTFT (ms)",
        "Median TTFT (ms)",
        "P99 TTFT (ms)",
    ]


def test_ratio_is_ours_to_the_other() -> None:
    line = lines(comparison(), "1 stream, 128:256 tokens")["Output token throughput (tok/s)"]

    assert [(cell.server, cell.values, cell.median) for cell in line.cells] == [
        (OURS, (300.0, 299.0), 299.5),
        (SERVE, (150.0, 150.0), 150.0),
    ]
    assert ratios(line) == {OURS: 1.0, SERVE: (2 + 299 / 150) / 2}


def test_ratio_is_the_median_of_those_within_the_rounds() -> None:
    rates = {OURS: (90.0, 100.0, 500.0), SERVE: (100.0, 200.0, 250.0)}
    loads = [figures(server, number, rate=rate) for server in rates for number, rate in enumerate(rates[server])]

    found = lines(replace(comparison(), loads=tuple(loads)), "8 streams, 128:256 tokens")

    assert ratios(found["Output token throughput (tok/s)"])[SERVE] == 0.9


def test_round_without_an_answer_has_no_part_in_the_ratio() -> None:
    ours = [figures(OURS, number, ttft=10.0 * (number + 1)) for number in (0, 1)]
    broken = [figures(SERVE, 0, rate=0, failed=24), figures(SERVE, 1, ttft=40.0)]

    found = lines(replace(comparison(), loads=(*ours, *broken)), "8 streams, 128:256 tokens")

    assert ratios(found["Median TTFT (ms)"])[SERVE] == 0.5
    assert ratios(found["Output token throughput (tok/s)"])[SERVE] == 1.0


def test_first_load_is_beside_the_last() -> None:
    found = lines(comparison(), "first loads after ready: 64 streams, 128:256 tokens")

    ours = {figure: line.cells[0].median for figure, line in found.items()}
    assert (ours["1st load: Median TTFT (ms)"], ours["3rd load: Median TTFT (ms)"]) == (100.0, 100.0 / 3)
    assert ours["1st load: Kernels compiled meanwhile"] == 7
    assert not any(name.startswith("2nd") for name in found)


def test_time_to_ready_and_memory_are_compared_where_they_are_known() -> None:
    found = lines(comparison(), "start")

    assert ratios(found["Time to ready (s)"]) == {OURS: 1.0, SERVE: 1.25}
    assert ratios(found["Main memory, proportional (MiB)"]) == {OURS: 1.0}


def test_table_without_measurements_is_omitted() -> None:
    assert tables(Comparison((OURS,), (99.0,)), ["ttft"]) == []


def test_failed_requests_of_all_loads_are_counted() -> None:
    found = replace(comparison(), loads=(figures(failed=2),), first=(figures(failed=1),))

    assert found.failed == 3


def test_json_holds_tables_and_all_loads() -> None:
    content = json.loads(json.dumps(as_json(comparison(), {"machine": "laptop"})))

    assert (content["machine"], content["servers"], content["failed_requests"]) == ("laptop", [OURS, SERVE], 0)
    assert len(content["loads"]) == 8
    assert content["loads"][0]["output_throughput"] == 300
    assert content["first_loads"][0]["compilations"] == 7
    assert content["starts"][0]["ready_s"] == 50
    assert content["tables"][2]["lines"][1]["cells"][1]["ratio"] == (2 + 299 / 150) / 2


def test_figures_of_two_servers_are_compared_run_by_run() -> None:
    ours = [[("rate", rate)] for rate in (90.0, 100.0, 500.0)]
    other = [[("rate", rate)] for rate in (100.0, 200.0, 250.0)]

    assert compared(ours, other) == [Row("rate", 100, 200, 0.9)]
    assert compared(ours, []) == [Row("rate", 100, None, None)]
    assert compared([[("rate", 1.0)]], [[("rate", 0.0)]]) == [Row("rate", 1, 0, None)]
