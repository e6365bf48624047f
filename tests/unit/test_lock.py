"""The lock for CUDA holds what a start on an NVIDIA GPU imports: by sources and metadata, without one."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from sysconfig import get_path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.cuda_imports import NOT_AT_START, applies, distributions, locked, missing, walk
from tests.imports import Walk
from tests.server import REPOSITORY

LOCKS = REPOSITORY / "requirements"
LOCK = (LOCKS / "cuda.txt").read_text()
RECORDED = [Requirement(line) for line in re.findall(r"^\w.*", (LOCKS / "vllm-wheel.txt").read_text(), re.MULTILINE)]
VLLM = Path(get_path("purelib"))

NOT_LOCKED = {
    "torchaudio": "vllm/multimodal/audio.py does without it, and text has no audio",
    "torchcodec": "vllm/multimodal/media/audio.py does without it, and text has no audio",
}
"""What vLLM's wheel requires and requirements/overrides.txt leaves out.

That nothing imports them at start is what the walk proves for vLLM, and for all packages an H200 that served without
them (2026-11-30).
"""


@pytest.fixture(scope="module")
def walked() -> Walk:
    return walk(VLLM)


def test_lock_requirements_are_recorded_for_the_vllm_that_is_pinned() -> None:
    pins = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]["cuda"]

    assert str(RECORDED[0]) in pins, "run scripts/lock"
    assert str(RECORDED[0]) == f"vllm=={locked(LOCK)['vllm']}", "run scripts/lock"


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_lock_has_every_requirement_of_vllm(python: str) -> None:
    versions = locked(LOCK, python)
    required = [each for each in RECORDED if applies(each, python) and canonicalize_name(each.name) not in NOT_LOCKED]

    assert len(required) > 60
    unmet = [str(each) for each in required if versions.get(canonicalize_name(each.name), "") not in each.specifier]
    assert not unmet


def test_lock_leaves_out_what_the_overrides_name_and_nothing_else() -> None:
    overrides = re.findall(r"^[\w-]+", (LOCKS / "overrides.txt").read_text(), re.MULTILINE)

    assert set(overrides) == NOT_LOCKED.keys()
    assert not NOT_LOCKED.keys() & locked(LOCK).keys()
    assert NOT_LOCKED.keys() <= {each.name for each in RECORDED}


def test_lock_has_every_import_of_a_start_on_a_gpu(walked: Walk) -> None:
    assert missing(walked, LOCK) == []


@pytest.mark.parametrize("name", NOT_LOCKED)
def test_lock_leaves_out_only_what_no_start_imports(walked: Walk, name: str) -> None:
    assert not [module for module in walked.needed if name in distributions(module)]


def test_lock_without_torchvision_is_refused_with_the_way_to_its_import(walked: Walk) -> None:
    """So it was when the first GPU met the lock: exit 70 in the kernel warm-up."""
    (line,) = missing(walked, re.sub(r"(?m)^torchvision==.*\n", "", LOCK))

    way = (
        "vllm.v1.worker.gpu_worker:Worker.compile_or_warm_up_model()",
        "vllm.model_executor.warmup.kernel_warmup:kernel_warmup()",
        "vllm.model_executor.warmup.minimax_m3_msa_warmup",
        "vllm.models.minimax_m3.nvidia.model",
        "vllm.models.minimax_m3.common.mm_preprocess",
        "vllm.transformers_utils.processors.minimax_m3",
    )
    assert line.startswith("torchvision.transforms (torchvision) is not in the lock")
    assert line.endswith(" → ".join(way))


def test_lock_that_excludes_a_package_everywhere_does_not_have_it(walked: Walk) -> None:
    (line,) = missing(walked, LOCK.replace("\ntorchvision==0.28.0", "\ntorchvision==0.28.0 ; sys_platform == 'never'"))

    assert line.startswith("torchvision.transforms")


def test_walk_reaches_the_worker_the_model_and_our_engine(walked: Walk) -> None:
    modules = {scope.module for scope in walked.reached}

    assert len(modules) > 1000
    assert {"vllm.v1.engine.async_llm", "vllm.model_executor.layers.fused_moe", "gptoss_bento.errors"} <= modules
    assert {"torch", "triton", "transformers", "flashinfer", "psutil"} <= {name.split(".")[0] for name in walked.needed}


def test_walk_has_the_source_of_all_that_is_no_kernel(walked: Walk) -> None:
    kernels = ("vllm._C_stable_libtorch", "vllm.vllm_flash_attn.cute")

    assert [module for module in walked.absent if not module.startswith(kernels)] == []


def test_walk_has_no_exception_that_it_does_not_meet(walked: Walk) -> None:
    assert NOT_AT_START.keys() <= walked.needed.keys() | {module.split(".")[0] for module in walked.needed}


def test_walk_of_another_vllm_names_a_module_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match="no source of vllm"):
        walk(tmp_path)


def test_lock_takes_cuda_python_from_the_series_of_cuda_bindings() -> None:
    """Older ones are no empty shell: their files in `cuda/bindings` overwrite the other package's at random.

    CuTe, which vLLM imports beside FlashInfer at each start, then fails (seen on an H200 with 12.6.2 beside 13.5.0).
    """
    versions = locked(LOCK)

    assert versions["cuda-python"].split(".")[:2] == versions["cuda-bindings"].split(".")[:2]
