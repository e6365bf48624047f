"""What the plugin of vLLM relies on in Triton, and vLLM's monitor of it. Kernels are really compiled: for an H100."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.contract]

KERNELS = """
import triton
import triton.language as tl


@triton.jit
def counting(X, n_rows, BLOCK: tl.constexpr, ODD: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    tl.store(X + offsets, offsets + n_rows, mask=offsets < n_rows)


@triton.jit(do_not_specialize=["n_rows"])
def declared(X, n_rows, BLOCK: tl.constexpr, ODD: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    tl.store(X + offsets, offsets + n_rows, mask=offsets < n_rows)
"""
# Triton compiles without a GPU; only what it asks its driver is made up.
HEAD = """
import sys
from types import SimpleNamespace
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
driver.set_active(SimpleNamespace(
    get_current_target=lambda: GPUTarget("cuda", 90, 32),
    get_current_device=lambda: 0,
    get_current_stream=lambda _: 0,
))
import kernels
from gptoss_bento.engine.vllm_plugin import compilations
from gptoss_bento.engine.vllm_plugin.routing_kernels import generalize


def compile(kernel, *rows, odd=None):
    for number in rows:
        kernel.warmup(torch.int32, number, BLOCK=32, ODD=odd, grid=(1,))
"""


def compiled(folder: Path, script: str) -> tuple[list[str], str]:
    """The kernels that were recorded while the script ran, one by one, and what it printed and logged."""
    (folder / "kernels.py").write_text(KERNELS)
    (folder / "script.py").write_text(HEAD + script)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "TRITON_CACHE_DIR": str(folder / "cache"),
        "GPTOSS_BENTO_EXIT_NOTE": str(folder / "note.json"),
        "VLLM_LOGGING_LEVEL": "INFO",
    }
    done = subprocess.run(
        [sys.executable, str(folder / "script.py")],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    record = folder / "note.compilations"
    lines = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    assert all(line["seconds"] > 0 for line in lines)
    return [line["kernel"] for line in lines], done.stdout


SIZES = "1, 2, 15, 16, 17, 33, 8192, 8191"


def test_kernel_is_compiled_again_for_one_and_for_what_16_divides(tmp_path: Path) -> None:
    """Why routing_kernels.py is there. When this fails, Triton has another way."""
    recorded, _ = compiled(tmp_path, f"compilations.record(); compile(kernels.counting, {SIZES})")

    assert recorded == ["counting"] * 3


@pytest.mark.parametrize(
    "generalized", ['generalize(kernels.counting, ("n_rows",))', "kernels.counting = kernels.declared"]
)
def test_kernel_that_is_general_is_compiled_once(tmp_path: Path, generalized: str) -> None:
    script = f"compilations.record(); {generalized}; compile(kernels.counting, {SIZES})"
    recorded, _ = compiled(tmp_path, script)

    assert len(recorded) == 1


def test_kernel_without_constants_is_compiled_as_generally_as_before(tmp_path: Path) -> None:
    """A kernel derived from another takes over the options of its decorator."""
    script = "generalize(kernels.counting, ('n_rows',)); print('found', kernels.counting.do_not_specialize)"

    assert "found ['n_rows']" in compiled(tmp_path, script)[1]


def test_kernel_from_tritons_cache_is_recorded_too(tmp_path: Path) -> None:
    script = "compilations.record(); compile(kernels.counting, 2)"
    compiled(tmp_path, script)

    assert compiled(tmp_path, script)[0] == ["counting", "counting"]


ODD = "odd=type('Odd', (), {'cache_key': '1'})()"


def test_constant_that_is_no_json_stops_no_compilation(tmp_path: Path) -> None:
    script = f"""
from triton import knobs
knobs.runtime.jit_post_compile_hook = lambda **_: None
try:
    compile(kernels.counting, 2, {ODD})
except TypeError as error:
    print("unguarded:", error)
compilations.record()
compile(kernels.counting, 3, {ODD})
"""
    recorded, printed = compiled(tmp_path, script)

    assert "unguarded: Object of type Odd is not JSON serializable" in printed, "then the guard can go"
    assert recorded == ["counting"]


def test_monitor_of_vllm_still_records_and_logs_once_the_service_is_ready(tmp_path: Path) -> None:
    script = """
from pathlib import Path
from triton.runtime import jit
from vllm.utils import jit_monitor
jit_monitor.HAS_TRITON = True  # it looks for a GPU
compilations.record()
guard = jit.serialize_specialization_data
jit_monitor._setup_triton_jit_hook()
print("guarded once:", jit.serialize_specialization_data is guard)
compile(kernels.counting, 2)
print("ready", flush=True)
Path(sys.argv[0]).with_name("note.serving").touch()
compile(kernels.declared, 2)
"""
    recorded, printed = compiled(tmp_path, script)

    assert recorded == ["counting", "declared"]
    assert "guarded once: True" in printed
    before, after = printed.split("ready\n")
    assert "during inference" not in before
    assert "Triton kernel JIT compilation during inference: declared" in after
