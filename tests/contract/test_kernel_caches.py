"""How the libraries keep what they compile, as far as we rely on it.

That is in planning/kernel_key.py, artifacts/kernel_cache.py and artifacts/compilers.py.

The lock for CPUs has another Triton than the one for CUDA; what is held here was read in both.
"""

from __future__ import annotations

import inspect
import json
import logging
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gptoss_bento.artifacts import kernel_cache
from gptoss_bento.engine import vllm_parser
from gptoss_bento.engine.vllm_plugin import start_times
from gptoss_bento.engine.vllm_plugin.start_times import LINES, Line, Recorder
from tests.module_source import source_of

pytestmark = [pytest.mark.contract, pytest.mark.filterwarnings("default")]


def test_recorded_variables_without_effect_are_those_of_the_installed_vllm() -> None:
    recorded = json.loads(files("gptoss_bento.config").joinpath("vllm_unhashed_variables.json").read_text())

    assert recorded == vllm_parser.describe_unhashed_variables(), "run `gptoss-bento record-options`"


def test_number_of_api_servers_is_not_in_vllms_key() -> None:
    from vllm.config import ParallelConfig

    alone, several = ParallelConfig(), ParallelConfig(_api_process_count=4, _api_process_rank=1)

    assert alone.compute_hash() == several.compute_hash()


def test_vllms_own_limit_of_a_start_is_in_its_key() -> None:
    from vllm import envs

    assert "VLLM_ENGINE_READY_TIMEOUT_S" in envs.compile_factors(), (
        "then planning/process_variables.py need not keep it the same"
    )


@pytest.mark.parametrize(("logger", "line"), [(name, line) for name, lines in LINES.items() for line in lines])
def test_start_times_are_still_logged_in_these_texts(logger: str, line: Line) -> None:
    source = source_of(logger)

    assert line.text in source
    assert line.text.count("%") > line.seconds


@pytest.fixture
def triton_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Gives Triton's manager of one kernel's files, in the folder `name`."""
    from triton.runtime.cache import FileCacheManager

    def manager(name: str) -> Any:
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / name / "triton"))
        return FileCacheManager("hash")

    return manager


def test_triton_finds_a_moved_kernel_only_after_its_paths_were_corrected(triton_caches: Any, tmp_path: Path) -> None:
    kept = triton_caches("old")
    kept.put_group("k.json", {"k.cubin": kept.put(b"code", "k.cubin")})
    (tmp_path / "old").rename(tmp_path / "new")

    assert not triton_caches("new").get_group("k.json"), "then no path needs to be corrected"
    assert kernel_cache.relocate(tmp_path / "new") == 1
    found = triton_caches("new").get_group("k.json")
    assert {name: Path(path).read_bytes() for name, path in found.items()} == {"k.cubin": b"code"}


def test_triton_makes_a_kernels_folder_before_it_reads_it(triton_caches: Any, tmp_path: Path) -> None:
    triton_caches("caches")

    assert (tmp_path / "caches" / "triton" / "hash").is_dir(), "a folder that cannot be written may be used as it is"


def test_triton_takes_cc_then_gcc_then_clang_and_keeps_its_module() -> None:
    from triton.runtime import build

    source = inspect.getsource(build)
    assert source.index('os.environ.get("CC")') < source.index("Failed to find C compiler")
    assert 'shutil.which("clang")' in source
    assert 'cache.get_file(f"{name}{suffix}")' in source
    assert 'name="cuda_utils"' in source_of("triton.backends.nvidia.driver")


def test_vllm_does_not_ask_for_compilers_before_it_reduces_by_flashinfer() -> None:
    """If it does, compilers.without_all_reduce can go."""
    source = source_of("vllm.distributed.device_communicators.flashinfer_all_reduce")

    assert "import flashinfer.comm as flashinfer_comm" in source
    assert "has_flashinfer" not in source
    assert "nvcc" not in source
    communicator = source_of("vllm.distributed.device_communicators.cuda_communicator")
    assert "envs.VLLM_ALLREDUCE_USE_FLASHINFER and not envs.VLLM_BATCH_INVARIANT" in communicator


def test_vllm_needs_nvcc_and_ninja_for_flashinfer() -> None:
    source = source_of("vllm.utils.flashinfer")

    assert 'shutil.which("ninja") is None' in source
    assert 'os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")' in source
    assert '_DEFAULT_CUDA_HOME = "/usr/local/cuda"' in source


def test_start_time_of_torch_compile_is_recorded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from vllm.compilation import monitor
    from vllm.config import CompilationMode

    recorder = Recorder(tmp_path / "times", LINES["vllm.compilation.monitor"])
    compilation = SimpleNamespace(mode=CompilationMode.VLLM_COMPILE, compilation_time=0.0)
    config: Any = SimpleNamespace(compilation_config=compilation, compile_debug_dump_path=lambda: None)
    caplog.set_level(logging.INFO, monitor.logger.name)
    monitor.logger.addFilter(recorder)
    try:
        with monitor.monitor_torch_compile(config):
            pass
    finally:
        monitor.logger.removeFilter(recorder)

    assert start_times.read(tmp_path / "times") == {"torch.compile": compilation.compilation_time}
