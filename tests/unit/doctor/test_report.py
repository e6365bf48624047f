from __future__ import annotations

from rich.console import Console

from gptoss_bento.doctor.finding import error, note, ok, warning
from gptoss_bento.doctor.report import as_json, as_table
from gptoss_bento.errors import ArtifactError

FINDINGS = [
    ok("port", "3000 is free"),
    note("open files", "limit 1,024"),
    warning("GPU processes", "GPU 0 is also used by [python]", "End them."),
    error("model", "gated", "Set HF_TOKEN.", ArtifactError),
]


def test_table_has_a_row_and_a_remedy_per_finding() -> None:
    console = Console(width=120, record=True, file=None)
    with console.capture() as captured:
        console.print(as_table(FINDINGS))

    lines = [line.split() for line in captured.get().splitlines()]
    assert lines[0] == ["check", "found", "remedy"]
    assert lines[1] == ["port", "ok", "3000", "is", "free"]
    assert " ".join(lines[3]) == "GPU processes warning GPU 0 is also used by [python] End them."
    assert lines[4] == ["model", "error", "gated", "Set", "HF_TOKEN."]
    assert len(lines) == 5


def test_json_has_everything_and_the_exit_code() -> None:
    report = as_json(FINDINGS)

    assert report["exit_code"] == 69
    assert [row["severity"] for row in report["findings"]] == ["ok", "note", "warning", "error"]
    assert report["findings"][3] == {
        "name": "model",
        "severity": "error",
        "found": "gated",
        "remedy": "Set HF_TOKEN.",
    }
