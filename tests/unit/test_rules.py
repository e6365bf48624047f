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


IMPORTS_VLLM = {
    "engine.py",  # starts it, and builds its application
    "engine_preload.py",  # replaces what starts its process, and nothing else
    "warmup.py",  # sends it requests, which are made of its classes
}
# vLLM imports these in its own processes: they have to derive from its classes or to change its modules.
PLUGIN = "vllm_plugin/__init__.py"  # finds out in which process it is, and changes nothing before vLLM calls it
IMPORTED_BY_VLLM: dict[str, set[str]] = {  # and who imports them beside it
    "bench/instant_executor.py": set(),  # `--distributed-executor-backend` names it
    "vllm_plugin/router_kernels.py": {PLUGIN},
    "vllm_plugin/routing_kernels.py": {PLUGIN},
}


@pytest.mark.parametrize(
    ("library", "owners"),
    [
        ("vllm", IMPORTS_VLLM | {PLUGIN} | IMPORTED_BY_VLLM.keys()),
        ("triton", {"vllm_plugin/compilations.py"}),  # its hooks
        ("triton_kernels", set()),  # only under the names by which vLLM has imported them
        ("pynvml", {"hardware.py"}),
    ],
)
def test_one_module_alone_imports(library: str, owners: set[str]) -> None:
    assert importers(library) == owners


@pytest.mark.parametrize("module", IMPORTED_BY_VLLM)
def test_no_module_imports_the_one_that_vllm_imports(module: str) -> None:
    name = Path(module).stem

    assert {importer for importer in MODULES if name in names_imported(importer)} == IMPORTED_BY_VLLM[module]


def names_imported(module: str) -> set[str]:
    """Each part of the dotted names that a module imports, and what it takes of them."""
    nodes = [node for node in ast.walk(tree(module)) if isinstance(node, ast.ImportFrom | ast.Import)]
    dotted = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    dotted += [alias.name for node in nodes for alias in node.names]
    return {part for name in dotted for part in name.split(".")}


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
    assert not loaded & {"vllm", "torch", "transformers", "triton", "pynvml"}
