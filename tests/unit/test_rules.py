"""The architecture, as far as a machine can hold it: what each module may touch."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import gptoss_bento
from tests.server import REPOSITORY

PACKAGE = Path(gptoss_bento.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


@cache
def tree(module: str) -> ast.Module:
    return ast.parse((PACKAGE / module).read_text())


def imported(module: str) -> Iterator[str]:
    """The top-level names of everything that a module imports, also inside functions."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def touched_of_os(module: str) -> Iterator[str]:
    """What a module takes from `os`, by attribute or by import."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            yield node.attr
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (alias.name for alias in node.names)


def importers(library: str) -> set[str]:
    return {module for module in MODULES if library in imported(module)}


# Imported by vLLM, not by us: `--distributed-executor-backend` names it, and it has to derive from vLLM's executor.
VLLM_PLUGIN = "bench/instant_executor.py"


@pytest.mark.parametrize(
    ("library", "owners"),
    [
        ("vllm", {"engine.py", VLLM_PLUGIN}),
        ("pynvml", {"hardware.py"}),
    ],
)
def test_one_module_alone_imports(library: str, owners: set[str]) -> None:
    assert importers(library) == owners


def test_no_module_imports_the_one_that_vllm_imports() -> None:
    name = Path(VLLM_PLUGIN).stem

    for module in MODULES:
        imports = [node for node in ast.walk(tree(module)) if isinstance(node, ast.ImportFrom | ast.Import)]
        assert not [node for node in imports if name in ast.unparse(node)], module


@pytest.mark.parametrize("library", ["sqlalchemy", "sqlite3"])
def test_only_the_store_speaks_sql(library: str) -> None:
    assert importers(library) <= {"native/store.py"}


def test_only_environment_touches_the_environment_variables() -> None:
    names = {"environ", "environb", "getenv", "getenvb"}

    assert {module for module in MODULES if names & set(touched_of_os(module))} == {"environment.py"}


PURE = [
    "plan.py",
    "estimate.py",
    "model_config.py",
    "model_fit.py",
    "kernel_key.py",
    "goal.py",
    "redaction.py",
    "http/paths.py",
    "bench/report.py",
    "bench/figures.py",
    "bench/chart.py",
    "bench/random_answers.py",
]
PURE_JOBS = ["batching", "harmony", "job", "json_text", "output", "payload", "sampling", "token_text"]


@pytest.mark.parametrize("module", [*PURE, *(f"native/{name}.py" for name in PURE_JOBS)])
def test_a_pure_module_imports_nothing_that_reaches_outside(module: str) -> None:
    outside = {"os", "sys", "time", "socket", "subprocess", "threading", "asyncio", "httpx", "psutil", "yaml"}

    assert not outside & set(imported(module))


def test_no_module_is_named_utils() -> None:
    assert not {part for module in MODULES for part in Path(module).with_suffix("").parts} & {"util", "utils"}


def test_the_service_and_the_command_load_no_model_library() -> None:
    script = "import json, sys, service, gptoss_bento.cli; print(json.dumps(sorted(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)

    assert ended.returncode == 0, ended.stderr
    loaded = set(json.loads(ended.stdout))
    assert {"service", "gptoss_bento.engine", "gptoss_bento.cli"} <= loaded
    assert not loaded & {"vllm", "torch", "transformers", "pynvml"}
