"""What a check says, and what all of it means for the exit code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from gptoss_bento.errors import ConfigurationError, GptOssBentoError
from gptoss_bento.redaction import HIDDEN, is_secret


class Severity(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    NOTE = "note"  # worth knowing; nothing to do
    WARNING = "warning"  # the service starts, but something will be slower, unsafe or fail later
    ERROR = "error"  # the service will not start


@dataclass(frozen=True)
class Finding:
    """One row of the table. `stops_with` is the error that would end the service, for findings of severity error."""

    name: str
    severity: Severity
    found: str
    remedy: str = ""
    stops_with: type[GptOssBentoError] | None = None


def ok(name: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding(name, Severity.OK, found)


def note(name: str, found: str, remedy: str = "") -> Finding:
    """Worth knowing."""
    return Finding(name, Severity.NOTE, found, remedy)


def warning(name: str, found: str, remedy: str) -> Finding:
    """Will hurt later."""
    return Finding(name, Severity.WARNING, found, remedy)


def error(name: str, found: str, remedy: str, stops_with: type[GptOssBentoError] = ConfigurationError) -> Finding:
    """Keeps the service from starting, with the exit code of this error."""
    return Finding(name, Severity.ERROR, found, remedy, stops_with)


WARNINGS_EXIT_CODE = 1
"""Warnings and no error."""


def exit_code(findings: Iterable[Finding]) -> int:
    """That of the service, which ends at the first error; 1 where there are only warnings; else 0."""
    findings = list(findings)
    for finding in findings:
        if finding.stops_with is not None:
            return finding.stops_with.exit_code
    return WARNINGS_EXIT_CODE if any(finding.severity is Severity.WARNING for finding in findings) else 0


_LEAST_SECRET = 8  # characters; anything shorter would black out plain words


def secrets(variables: Mapping[str, str]) -> frozenset[str]:
    """The values of variables whose names say that they are secret; of comma lists also each item."""
    texts = [text for name, text in variables.items() if is_secret(name)]
    parts = {part.strip() for text in texts for part in (text, *text.split(","))}
    return frozenset(part for part in parts if len(part) >= _LEAST_SECRET)


def without(hidden: Iterable[str], finding: Finding) -> Finding:
    """The finding with each of these texts blacked out, should an error message have quoted one."""
    found, remedy = finding.found, finding.remedy
    for text in sorted(hidden, key=len, reverse=True):
        found, remedy = found.replace(text, HIDDEN), remedy.replace(text, HIDDEN)
    return replace(finding, found=found, remedy=remedy)
