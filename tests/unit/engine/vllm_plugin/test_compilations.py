"""The record of compilations. Triton's own hooks: tests/contract/test_triton.py."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from gptoss_bento.engine.vllm_plugin import compilations
from gptoss_bento.engine.vllm_plugin.compilations import SERVING, Recorder
from tests.fakes import Clock

MONITOR = "vllm.utils.jit_monitor"


def kernel(name: str) -> Any:
    """As Triton names a function to its hooks."""
    return SimpleNamespace(name=name)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_line_has_the_kernel_and_its_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    recorder = Recorder(tmp_path / "record")
    for name, seconds in (("module.first", 0.4567), ("module.second", 2)):
        recorder.begin(key="k", fn=kernel(name), is_manual_warmup=False)
        clock.now += seconds
        recorder.end(key="k", fn=kernel(name), is_manual_warmup=False)

    assert lines(tmp_path / "record") == [
        {"kernel": "module.first", "seconds": 0.457},
        {"kernel": "module.second", "seconds": 2.0},
    ]


def test_record_is_for_its_owner_alone(tmp_path: Path) -> None:
    Recorder(tmp_path / "record").end(fn=kernel("k"))

    assert (tmp_path / "record").stat().st_mode & 0o077 == 0


def test_record_that_cannot_be_written_does_not_end_a_launch(tmp_path: Path) -> None:
    Recorder(tmp_path / "missing" / "record").end(fn=kernel("k"))

    assert list(tmp_path.iterdir()) == []


def test_kernel_without_a_name_is_counted_too(tmp_path: Path) -> None:
    Recorder(tmp_path / "record").end()

    assert [line["kernel"] for line in lines(tmp_path / "record")] == ["unknown"]


SEVERAL = """
import sys
from pathlib import Path
from types import SimpleNamespace
from gptoss_bento.engine.vllm_plugin.compilations import Recorder
recorder, kernel = Recorder(Path(sys.argv[1])), SimpleNamespace(name=sys.argv[2] * 200)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(2000):
    recorder.begin()
    recorder.end(fn=kernel)
"""


def test_lines_of_several_processes_do_not_mix(tmp_path: Path) -> None:
    record = tmp_path / "record"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SEVERAL, str(record), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in "ab"
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:  # both write from here on
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=60)

    assert Counter(line["kernel"] for line in lines(record)) == {"a" * 200: 2000, "b" * 200: 2000}


# In a process of the engine


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """In place of Triton, as far as it is changed."""

    def describe(constants: object) -> str:
        return json.dumps(constants)

    package: Any = ModuleType("triton")
    package.knobs = ModuleType("triton.knobs")
    package.knobs.runtime = SimpleNamespace(jit_cache_hook=None, jit_post_compile_hook=None)
    package.runtime = ModuleType("triton.runtime")
    package.runtime.jit = ModuleType("triton.runtime.jit")
    package.runtime.jit.serialize_specialization_data = describe
    for module in (package, package.knobs, package.runtime, package.runtime.jit):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monitor = logging.getLogger(MONITOR)
    filters = list(monitor.filters)
    yield package
    monitor.filters[:] = filters


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(os, "environ", {"GPTOSS_BENTO_EXIT_NOTE": str(tmp_path / "note.json")})
    return tmp_path / "note.compilations"


def test_hooks_of_triton_record_what_is_compiled(triton: Any, record: Path) -> None:
    compilations.record()
    hooks = triton.knobs.runtime
    assert hooks.jit_cache_hook(fn=kernel("k")) is None, "or Triton would not go on"
    hooks.jit_post_compile_hook(fn=kernel("k"))

    assert [line["kernel"] for line in lines(record)] == ["k"]


def test_recorder_is_off_outside_of_the_service(triton: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    describing = triton.runtime.jit.serialize_specialization_data

    compilations.record()

    assert triton.knobs.runtime == SimpleNamespace(jit_cache_hook=None, jit_post_compile_hook=None)
    assert triton.runtime.jit.serialize_specialization_data is describing


@pytest.mark.usefixtures("record")
def test_constants_that_are_no_json_do_not_stop_a_compilation(triton: Any) -> None:
    compilations.record()
    describe = triton.runtime.jit.serialize_specialization_data

    assert describe({"BLOCK": 32}) == '{"BLOCK": 32}'
    assert describe({"EPILOGUE": object()}) is None
    assert describe._vllm_guarded, "or vLLM's monitor would guard it once more"


@pytest.mark.usefixtures("triton")
def test_monitor_of_vllm_logs_once_the_service_is_ready(record: Path) -> None:
    compilations.record()
    monitor = logging.getLogger(MONITOR)
    line = logging.LogRecord(MONITOR, logging.WARNING, "", 0, "compiled", None, None)

    assert not monitor.filter(line)
    record.with_suffix(SERVING).touch()
    assert monitor.filter(line)
