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
    "engine/client.py",  # makes its errors
    "engine/replacements.py",  # replaces what must be replaced in it
    "engine/preloaded_modules.py",  # is imported by the process that the engine's is forked from
    "engine/launcher.py",  # starts and stops it
    "engine/vllm_app.py",  # builds its application
    "engine/vllm_parser.py",  # reads its arguments
    "engine/warmup.py",  # sends it requests, which are made of its classes
}
# vLLM imports these in its own processes: they have to derive from its classes or to change its modules.
PLUGIN = "engine/vllm_plugin/__init__.py"  # finds out in which process it is, and changes nothing before vLLM calls it
IMPORTED_BY_VLLM: dict[str, set[str]] = {  # and who imports them beside it
    "bench/instant_executor.py": set(),  # `--distributed-executor-backend` names it
    "engine/vllm_plugin/block_bookkeeping.py": {PLUGIN},
    "engine/vllm_plugin/graph_memory.py": {PLUGIN},
    "engine/vllm_plugin/router_kernels.py": {PLUGIN},
    "engine/vllm_plugin/routing_kernels.py": {PLUGIN},
}
BY_PATCH = {"engine/vllm_plugin/router_kernels.py"}  # only through a record of vllm_plugin/patches.py


@pytest.mark.parametrize(
    ("library", "owners"),
    [
        ("vllm", IMPORTS_VLLM | {PLUGIN} | IMPORTED_BY_VLLM.keys() - BY_PATCH),
        ("triton", set()),  # only its hooks, through records of vllm_plugin/patches.py
        ("triton_kernels", set()),  # only under the names by which vLLM has imported them
        ("pynvml", {"hardware/probe.py"}),
    ],
)
def test_library_is_imported_by_its_owner_alone(library: str, owners: set[str]) -> None:
    assert importers(library) == owners


@pytest.mark.parametrize("module", IMPORTED_BY_VLLM)
def test_module_that_vllm_imports_is_imported_by_no_other(module: str) -> None:
    name = Path(module).stem

    assert {importer for importer in MODULES if name in names_imported(importer)} == IMPORTED_BY_VLLM[module]


def names_imported(module: str) -> set[str]:
    """Each part of the dotted names that a module imports, and what it takes of them."""
    nodes = [node for node in ast.walk(tree(module)) if isinstance(node, ast.ImportFrom | ast.Import)]
    dotted = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    dotted += [alias.name for node in nodes for alias in node.names]
    return {part for name in dotted for part in name.split(".")}


@pytest.mark.parametrize("library", ["sqlalchemy", "sqlite3"])
def test_sql_is_used_by_state_alone(library: str) -> None:
    assert {Path(module).parts[0] for module in importers(library)} <= {"state"}


def test_environment_variables_are_touched_by_two_modules_alone() -> None:
    names = {"environ", "environb", "getenv", "getenvb"}

    assert {module for module in MODULES if names & set(touched_of_os(module))} == {
        "config/environment.py",  # reads what the operator says
        "config/process_environment.py",  # changes them, and hands them on to the processes of the service
    }


PURE = [
    *(module for module in MODULES if module.startswith(("planning/", "http/json_schema/"))),
    "config/goal.py",
    "redaction.py",
    "http/paths.py",
    *(module for module in MODULES if module.startswith("http/fields/") and module != "http/fields/unknown.py"),
    "bench/report.py",
    "bench/figures.py",
    "bench/chart.py",
    "bench/random_answers.py",
]
PURE_JOBS = [
    "jobs/field_types.py",
    "jobs/input.py",
    "jobs/input_models.py",
    "jobs/input_problems.py",
    "jobs/sampling.py",
    "jobs/output/batching.py",
    "jobs/output/channels.py",
    "jobs/output/readers.py",
    "jobs/output/token_text.py",
    "state/job.py",
    "strict_json.py",
]


@pytest.mark.parametrize("module", [*PURE, *PURE_JOBS])
def test_pure_module_imports_nothing_that_reaches_outside(module: str) -> None:
    outside = {"os", "sys", "time", "socket", "subprocess", "threading", "asyncio", "httpx", "psutil", "yaml"}

    assert not outside & set(imported(module))


LEAVES = {"concurrency", "errors", "patching", "paths", "redaction", "spelling", "strict_json"}
"""Modules of no package. They import one another at most."""

# From the top floor down: each package may import what its own line names, and the leaves. A new arrow is a decision.
ALLOWED: dict[str, set[str]] = {
    "cli": {"artifacts", "bench", "bento", "config", "doctor", "engine", "hardware", "planning", "state"},
    "bench": {"access", "config", "demo", "hardware", "planning", "server"},
    "server": {
        "access",
        "artifacts",
        "batches",
        "bento",
        "config",
        "engine",
        "hardware",
        "http",
        "jobs",
        "planning",
        "responses",
        "state",
        "workers",
    },
    "batches": {"access", "background", "config", "http", "jobs", "state"},  # jobs: a line calls the engine as one does
    "jobs": {"access", "background", "config", "engine", "http", "state", "workers"},
    "responses": {"access", "background", "engine", "http", "state"},
    "access": {"config", "engine", "http"},
    "background": {"state", "workers"},
    "engine": {"artifacts", "config", "http", "planning", "workers"},
    "doctor": {"artifacts", "config", "hardware", "planning"},
    "http": {"workers"},
    "bento": {"artifacts", "config"},
    "workers": {"config"},
    "training": {"artifacts", "config", "demo"},
    "artifacts": {"config", "demo", "hardware", "planning"},
    "planning": {"config", "hardware"},
    "state": set(),
    "tools": set(),  # settings come to it as arguments
    "config": {"hardware"},
    "hardware": set(),
    "demo": set(),
}


def box(module: str) -> str:
    """The package or leaf at the top of gptoss_bento that a module belongs to."""
    return Path(module).parts[0].removesuffix(".py")


def boxes_imported(module: str) -> set[str]:
    """The boxes that a module imports, also inside functions."""
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and node.module == "gptoss_bento":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gptoss_bento."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("gptoss_bento.")}
    return found - {"__version__"}


@pytest.mark.parametrize("package", ALLOWED)
def test_package_imports_only_lower_packages(package: str) -> None:
    imported_here = {name for module in MODULES if box(module) == package for name in boxes_imported(module)}

    assert imported_here - {package} <= ALLOWED[package] | LEAVES


def test_packages_have_no_circle() -> None:
    """The table is sorted: each package allows only those that come after it."""
    order = list(ALLOWED)

    assert [
        (upper, lower) for upper in order for lower in ALLOWED[upper] if order.index(lower) <= order.index(upper)
    ] == []


def test_modules_all_belong_to_a_package_or_are_leaves() -> None:
    found = {box(module) for module in MODULES} - {"__init__", "__main__"}

    assert found == ALLOWED.keys() | LEAVES
    assert len(found) <= 27


@pytest.mark.parametrize("leaf", sorted(LEAVES))
def test_leaf_imports_no_package(leaf: str) -> None:
    assert boxes_imported(f"{leaf}.py") <= LEAVES


@pytest.mark.parametrize("package", ALLOWED)
def test_package_has_its_purpose_in_one_line(package: str) -> None:
    purpose = ast.get_docstring(tree(f"{package}/__init__.py"))

    assert purpose
    assert "\n" not in purpose


def test_modules_are_never_named_utils() -> None:
    assert not {part for module in MODULES for part in Path(module).with_suffix("").parts} & {"util", "utils"}


def test_service_is_a_declaration() -> None:
    assert len((REPOSITORY / "service.py").read_text().splitlines()) <= 60


def test_service_and_the_command_load_no_model_library() -> None:
    script = "import json, sys, service, gptoss_bento.cli.main; print(json.dumps(sorted(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)

    assert ended.returncode == 0, ended.stderr
    loaded = set(json.loads(ended.stdout))
    assert {"service", "gptoss_bento.engine.launcher", "gptoss_bento.cli.main"} <= loaded
    assert not loaded & {"vllm", "torch", "transformers", "triton", "pynvml"}
