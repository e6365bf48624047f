from __future__ import annotations

import json
from dataclasses import asdict

from gptoss_bento.bench.load import Load
from gptoss_bento.bench.report import Row, Run, as_json, rows
from gptoss_bento.bench.servers import Memory


def run(server: str, *, ready_s: float | None = 40.0, rate: float = 100.0, memory: float | None = 3000.0) -> Run:
    loads = (Load(1, 12, rate, 20.0, 30.0, 5.0), Load(8, 24, 8 * rate, 40.0, 60.0, 6.0))
    return Run(server, ready_s, loads, None if memory is None else Memory(memory, memory / 2))


def ratios(found: list[Row]) -> dict[str, float | None]:
    return {row.figure: row.ratio for row in found}


def test_figures_come_in_the_order_of_the_measurements() -> None:
    assert [row.figure for row in rows([run("a")], [])] == [
        "time to ready, s",
        "output tokens/s, 1 stream",
        "first token, median ms, 1 stream",
        "first token, p99 ms, 1 stream",
        "time per output token, median ms, 1 stream",
        "output tokens/s, 8 streams",
        "first token, median ms, 8 streams",
        "first token, p99 ms, 8 streams",
        "time per output token, median ms, 8 streams",
        "resident memory, MiB",
        "proportional memory, MiB",
    ]


def test_a_ratio_is_ours_to_bare() -> None:
    found = ratios(rows([run("ours", rate=98.0, memory=3300.0)], [run("bare")]))

    assert found["output tokens/s, 1 stream"] == 0.98
    assert found["resident memory, MiB"] == 1.1
    assert found["time to ready, s"] == 1


def test_the_medians_over_the_runs_count_and_the_ratio_is_that_within_a_run() -> None:
    ours = [run("ours", rate=rate) for rate in (90.0, 100.0, 500.0)]
    bare = [run("bare", rate=rate) for rate in (100.0, 200.0, 250.0)]

    found = {row.figure: row for row in rows(ours, bare)}["output tokens/s, 1 stream"]

    assert (found.ours, found.baseline, found.ratio) == (100, 200, 0.9)


def test_without_a_bare_server_there_is_no_ratio() -> None:
    assert set(ratios(rows([run("ours")], [])).values()) == {None}


def test_a_figure_of_zero_gives_no_ratio() -> None:
    assert ratios(rows([run("ours")], [run("bare", rate=0.0)]))["output tokens/s, 1 stream"] is None


def test_what_was_not_measured_has_no_row() -> None:
    figures = ratios(rows([run("there", ready_s=None, memory=None)], []))

    assert "time to ready, s" not in figures
    assert "resident memory, MiB" not in figures
    assert len(figures) == 8


def test_the_json_holds_rows_with_ratios_and_all_runs() -> None:
    ours, bare = [run("ours"), run("ours")], [run("bare")]

    content = json.loads(json.dumps(as_json(ours, bare)))

    assert content["rows"][0] == {"figure": "time to ready, s", "ours": 40, "baseline": 40, "ratio": 1}
    assert content["runs"] == json.loads(json.dumps([asdict(one) for one in (*ours, *bare)]))
