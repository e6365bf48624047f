from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from gptoss_bento.bench.report import Comparison
from gptoss_bento.bench.tables import as_tables, notes
from tests.unit.bench.measured import OURS, SERVE, comparison, figures


def printed(found: Comparison) -> list[list[str]]:
    """The lines on a wide terminal, as lists of words."""
    console = Console(width=200)
    with console.capture() as capture:
        for table in as_tables(found, ["ttft"]):
            console.print(table)
    return [line.split() for line in capture.get().splitlines()]


def test_rounds_are_columns() -> None:
    lines = printed(comparison())

    assert ["1", "stream,", "128:256", "tokens", "300", "/", "299", "150", "/", "150", "1.0–1.0", "1.0–1.0"] in lines
    assert lines[1] == [
        *["load", "gptoss-bento,", "tok/s", "vllm", "serve,", "tok/s"],
        *["first", "token", "p50", "(ms),", "same", "order"],
    ]


def test_figures_are_beside_each_other_with_their_ratio() -> None:
    lines = printed(comparison())

    assert ["Output", "token", "throughput", "(tok/s)", "299.50", "150.00", "1.997"] in lines
    assert ["1st", "load:", "Kernels", "compiled", "meanwhile", "7.00", "7.00", "1.000"] in lines


def test_server_that_does_not_answer_has_no_figure() -> None:
    lines = printed(replace(comparison(), loads=(figures(OURS), figures(SERVE, rate=0, failed=24))))

    assert ["Median", "TTFT", "(ms)", "20.00"] in lines
    assert ["8", "streams,", "128:256", "tokens", "100", "0", "20", "-"] in lines


def test_notes_describe_the_clients() -> None:
    assert notes(comparison()) == ["Medians over the rounds. A client process was busy for 25% of the time at most."]


def test_notes_warn_of_busy_and_late_clients() -> None:
    found = notes(replace(comparison(), first=(replace(figures(), client_busy=0.9, late_s=0.2),)))

    assert found[1].startswith("warning: the clients may be what was measured")
    assert found[2] == "warning: in one load a client process began 0.20 s after the others."


def test_notes_list_failures_once() -> None:
    loads = (figures(failed=2), figures(SERVE, failed=1))

    found = notes(replace(comparison(), loads=loads, failures=("vllm serve: it ended",)))

    assert found[1:] == ["warning: vllm serve: it ended", "warning: 3 requests failed: no room"]


def test_notes_of_nothing_are_the_failures() -> None:
    assert notes(Comparison((OURS,), (), failures=("why",))) == ["why"]
