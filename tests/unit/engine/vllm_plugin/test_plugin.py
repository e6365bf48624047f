"""That vLLM can find the plugin, and where it acts."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from gptoss_bento.engine import vllm_plugin
from gptoss_bento.engine.vllm_plugin import (
    block_bookkeeping,
    compilations,
    router_kernels,
    routing_kernels,
    start_times,
    token_bookkeeping,
)
from tests.fakes import Calls
from tests.server import REPOSITORY

GROUP = "vllm.general_plugins"


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of this process; what a test adds goes again."""
    path = [entry for entry in sys.path if entry != str(vllm_plugin._REGISTRATION)]
    monkeypatch.setattr(sys, "path", path)
    return path


def registered() -> list[str]:
    return [point.value for point in entry_points(group=GROUP, name=vllm_plugin.NAME)]


def test_entry_point_is_found_once_it_is_advertised() -> None:
    assert registered() == [], "`vllm serve` beside us must not have it"

    vllm_plugin.advertise()

    assert registered() == ["gptoss_bento.engine.vllm_plugin:register"]
    (point,) = entry_points(group=GROUP, name=vllm_plugin.NAME)
    assert point.load() is vllm_plugin.register


def test_path_has_the_registration_once_however_often_it_is_advertised(path: list[str]) -> None:
    before = list(path)
    vllm_plugin.advertise()
    vllm_plugin.advertise()

    assert path == [*before, str(vllm_plugin._REGISTRATION)]
    assert len(registered()) == 1


def test_registration_needs_nothing_but_its_folder() -> None:
    """As in a Bento, where this package is not installed."""
    folder = Path(vllm_plugin.__file__).with_name("registration")
    script = (
        f"import sys; sys.path = [{str(folder)!r}, *[entry for entry in sys.path if 'site-packages' not in entry]];"
        f"from importlib.metadata import entry_points; print([p.value for p in entry_points(group={GROUP!r})])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "['gptoss_bento.engine.vllm_plugin:register']"


def test_registration_goes_into_a_wheel() -> None:
    """Its builder takes the whole package, but for what git ignores. A Bento: tests/contract/test_bentoml.py."""
    wheel = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    ignored = [line.strip("/") for line in (REPOSITORY / ".gitignore").read_text().split()]
    files = [file for file in vllm_plugin._REGISTRATION.rglob("*") if file.is_file()]

    assert wheel["packages"] == ["src/gptoss_bento"]
    assert not {"exclude", "include", "only-include"} & wheel.keys()
    assert {file.name for file in files} == {"METADATA", "entry_points.txt"}
    parts = {part for file in files for part in file.relative_to(REPOSITORY).parts}
    assert not [part for part in parts for pattern in ignored if fnmatch(part, pattern)]


# What it does in a process of vLLM's


@pytest.fixture
def changes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the parts that were called."""
    called: list[str] = []
    parts = [
        (start_times, "record"),
        (block_bookkeeping, "install"),
        (token_bookkeeping, "install"),
        (compilations, "record"),
        (routing_kernels, "install"),
        (router_kernels, "install"),
    ]
    for module, name in parts:
        note = module.__name__.rpartition(".")[2]
        monkeypatch.setattr(module, name, Calls(compute=lambda *_, note=note: called.append(note)))
    return called


def on_platform(monkeypatch: pytest.MonkeyPatch, cuda: bool) -> None:
    platforms: Any = ModuleType("vllm.platforms")
    platforms.current_platform = SimpleNamespace(is_cuda=lambda: cuda)
    monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)


def test_api_server_stays_as_it_is(monkeypatch: pytest.MonkeyPatch, changes: list[str]) -> None:
    monkeypatch.setitem(sys.modules, "vllm.platforms", None)  # an import of it would fail
    assert multiprocessing.parent_process() is None

    vllm_plugin.register()

    assert changes == []


@pytest.mark.parametrize(
    ("cuda", "expected"), [(False, []), (True, ["compilations", "routing_kernels", "router_kernels"])]
)
def test_kernels_are_changed_on_nvidias_cards_alone(
    monkeypatch: pytest.MonkeyPatch, changes: list[str], cuda: bool, expected: list[str]
) -> None:
    monkeypatch.setattr(multiprocessing, "parent_process", Calls("the API server"))
    on_platform(monkeypatch, cuda)

    vllm_plugin.register()

    assert changes == ["start_times", "block_bookkeeping", "token_bookkeeping", *expected]


def test_log_lines_have_the_prefix_of_vllms_own() -> None:
    assert vllm_plugin.logger.name.startswith("vllm.")
