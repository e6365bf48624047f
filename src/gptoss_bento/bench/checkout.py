"""Another checkout of this project, such as an older commit, whose own service is compared with this one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptoss_bento.config import process_environment
from gptoss_bento.errors import BenchmarkError

_SOURCE = "src"
# The service, the command that prints its plan, and the module of `frontend.EXECUTOR`.
_FILES = ("service.py", "src/gptoss_bento/__main__.py", "src/gptoss_bento/bench/instant_executor.py")
_SINGLE_VALUES = ("model", "served_names", "warmup")  # of a plan, beside its arguments and variables


@dataclass(frozen=True)
class Checkout:
    """A folder with another version of this project. It runs on this Python and its installed packages."""

    folder: Path

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def server(self) -> str:
        """Its name in tables and files. A clone may have this project's name, so the folder's name is not enough."""
        return f"checkout {self.folder.name}"

    @property
    def variables(self) -> dict[str, str]:
        """What its processes need in their environment to import their own modules instead of the installed ones."""
        return process_environment.import_path_from(self.folder / _SOURCE)

    def plan(self, variables: Mapping[str, str]) -> dict[str, Any]:
        """What its service would serve, as its own `gptoss-bento plan --json` says.

        Args:
            variables: what its service gets beside this process's own variables.

        Raises:
            BenchmarkError: it refuses these variables, or has no such command.
        """
        ended = subprocess.run(
            [sys.executable, "-m", "gptoss_bento", "plan", "--json"],
            cwd=self.folder,
            env=process_environment.extended({**variables, **self.variables}),
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            said = (ended.stderr.strip() or ended.stdout.strip())[-1000:]
            raise BenchmarkError(f"{self.folder}: its `gptoss-bento plan --json` ended with {ended.returncode}: {said}")
        found: dict[str, Any] = json.loads(ended.stdout)
        return found


def missing_files(folder: Path) -> list[str]:
    """What a folder lacks to be a checkout of this project that can be served without a model."""
    return [file for file in _FILES if not (folder / file).is_file()]


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """What two plans, as `plan --json` gives them, do not have in common, each with both values. Pure."""
    mine, other = dict(_values(ours)), dict(_values(theirs))
    return [
        f"{name} is {_shown(name, mine)} here and {_shown(name, other)} there"
        for name in dict.fromkeys((*mine, *other))
        if mine.get(name) != other.get(name)
    ]


def _values(plan: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    single = {name: plan[name] for name in _SINGLE_VALUES if name in plan}
    for planned in (single, plan["arguments"], plan["environment"]):
        yield from ((name, planned[name]["value"]) for name in planned)


def _shown(name: str, values: Mapping[str, Any]) -> str:
    return json.dumps(values[name]) if name in values else "not planned"
