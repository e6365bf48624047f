"""The findings for people and for machines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.table import Table
from rich.text import Text

from gptoss_bento.doctor.finding import Finding, Severity, exit_code

_STYLES = {Severity.OK: "green", Severity.NOTE: "cyan", Severity.WARNING: "yellow", Severity.ERROR: "bold red"}


def as_table(findings: Iterable[Finding]) -> Table:
    """One row per finding, in the order in which a start would meet them."""
    table = Table("check", "", "found", "remedy", box=None)
    for finding in findings:
        severity = Text(finding.severity, _STYLES[finding.severity])
        table.add_row(Text(finding.name), severity, Text(finding.found), Text(finding.remedy))
    return table


def as_json(findings: Iterable[Finding]) -> dict[str, Any]:
    """`exit_code` is also what the command ends with."""
    findings = list(findings)
    rows = [
        {"name": one.name, "severity": one.severity.value, "found": one.found, "remedy": one.remedy} for one in findings
    ]
    return {"exit_code": exit_code(findings), "findings": rows}
