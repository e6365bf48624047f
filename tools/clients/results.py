"""What a script printed, read; and the table of all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

_LINE = re.compile(r"^(?P<word>ok|FAIL) (?P<name>[\w.-]+)(?:: (?P<reason>.*))?$")
_LAST = re.compile(r"^\d+ of \d+$")
Checks = Mapping[str, str | None]
"""The checks of a client: why each failed, or None."""


@dataclass(frozen=True)
class Result:
    """One client's."""

    client: str
    version: str
    checks: Checks

    @property
    def failed(self) -> dict[str, str]:
        """Its checks that failed, and why."""
        return {name: reason for name, reason in self.checks.items() if reason is not None}

    @property
    def score(self) -> str:
        return f"{len(self.checks) - len(self.failed)} of {len(self.checks)}"


def read_checks(output: str) -> dict[str, str | None]:
    """The lines `ok NAME` and `FAIL NAME: reason`; without its last line a script has a failed check `end` too."""
    lines = output.splitlines()
    found = [match for line in lines if (match := _LINE.match(line))]
    checks = {match["name"]: None if match["word"] == "ok" else match["reason"] or "failed" for match in found}
    if not any(_LAST.match(line) for line in lines):
        checks["end"] = f"the script did not end by itself: {lines[-1].strip()[:160] if lines else 'no output'}"
    return checks


def as_json(results: list[Result]) -> list[dict[str, object]]:
    """For a file that `from_json` reads."""
    return [{"client": each.client, "version": each.version, "checks": dict(each.checks)} for each in results]


def from_json(content: list[dict[str, object]]) -> dict[str, Result]:
    """The results of an earlier run, by client."""
    return {str(each["client"]): Result(**each) for each in content}  # type: ignore[arg-type]


def merged(earlier: Mapping[str, Result], results: list[Result]) -> Iterable[Result]:
    """The results of an earlier run, with the newer one of each client that was run again."""
    return {**earlier, **{each.client: each for each in results}}.values()


def table(results: list[Result], before: Mapping[str, Result]) -> str:
    """Markdown, with a column of an earlier run if there was one."""
    heads = ["client", "version", *(["before"] if before else []), "now", "fails"]
    rows = [heads, ["---"] * len(heads), *(_row(each, before) for each in results)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(result: Result, before: Mapping[str, Result]) -> list[str]:
    earlier = before.get(result.client)
    column = [earlier.score if earlier else "–"] if before else []
    return [f"`{result.client}`", result.version, *column, result.score, ", ".join(result.failed) or "–"]


def lost(results: list[Result], before: Mapping[str, Result]) -> Iterator[str]:
    """Checks that were right in the earlier run and are not now, as `CLIENT CHECK: reason`."""
    for result in results:
        earlier = before[result.client].checks if result.client in before else {}
        for name, reason in result.failed.items():
            if earlier.get(name, "unknown") is None:
                yield f"{result.client} {name}: {reason}"
