"""What vLLM imports on an NVIDIA GPU before it serves GPT-OSS, held against a lock: needs neither a GPU nor CUDA.

For another vLLM, before an upgrade: `python -m tests.cuda_imports FOLDER [LOCK]`, where FOLDER has its wheel unpacked.
vLLM's wheels for CPU and CUDA have the same sources, but for those of kernels that only CUDA has.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.imports import Sources, Walk
from tests.server import REPOSITORY

STARTED = (
    "gptoss_bento.engine.launcher",
    "gptoss_bento.engine.client",
    "gptoss_bento.engine.vllm_app",
    "gptoss_bento.engine.vllm_parser",
    "vllm.v1.worker.gpu_worker",
    "vllm.model_executor.models.gpt_oss",
    # What vLLM finds by a name in a string, or behind a condition of its configuration.
    "vllm.platforms.cuda",
    "vllm.v1.engine.core",
    "vllm.v1.executor.uniproc_executor",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.worker.gpu_model_runner",
    "vllm.v1.worker.gpu.model_runner",
    "vllm.distributed.device_communicators.cuda_communicator",
    "vllm.v1.attention.backends.flash_attn",
    "vllm.v1.attention.backends.flashinfer",
    "vllm.v1.attention.backends.triton_attn",
    "vllm.model_executor.layers.quantization",
    "vllm.model_executor.layers.quantization.mxfp4",
    "vllm.model_executor.layers.fused_moe.experts.flashinfer_cutlass_moe",
    "vllm.model_executor.layers.fused_moe.experts.gpt_oss_triton_kernels_moe",
    "vllm.model_executor.layers.fused_moe.experts.marlin_moe",
    "vllm.model_executor.layers.fused_moe.experts.trtllm_mxfp4_moe",
)
"""Where the walk begins: each function of these modules counts as called."""

WARMUP = "vllm.model_executor.warmup"
"""Each function of its modules counts as called too; what they do depends on card and model."""

FACTS = {
    "TYPE_CHECKING": False,
    "HAS_TRITON": True,  # torch for CUDA requires it
    "has_flashinfer": True,  # vLLM for CUDA requires it
    "is_cuda": True,
    "is_cuda_alike": True,
    **dict.fromkeys(("is_cpu", "is_zen_cpu", "is_rocm", "is_xpu", "is_tpu", "is_out_of_tree"), False),
}

NOT_AT_START = {
    "aiter": "AMD's kernels, in a method that is only called on gfx942",
    "ray": "in EngineCoreActor, which only --data-parallel-backend ray starts",
}
"""Modules that the walk meets and a start does not, with the reason."""

# Where a package has another name than its module, of those that are not installed beside vLLM for CPUs.
_DISTRIBUTIONS = {
    "cuda": "cuda-bindings",
    "cutlass": "nvidia-cutlass-dsl",
    "flashinfer": "flashinfer-python",
    "quack": "quack-kernels",
    "triton_kernels": "vllm",  # a copy, which vLLM registers under this name
    "tvm_ffi": "apache-tvm-ffi",
}
_MACHINE = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}


def walk(folder: Path) -> Walk:
    """Follows a start on NVIDIA through our sources and vLLM's.

    Args:
        folder: what holds the package vllm.

    Raises:
        ModuleNotFoundError: vLLM has no such module any more; STARTED should name what took its place.
    """
    warmups = sorted(f"{WARMUP}.{file.stem}" for file in (folder / WARMUP.replace(".", "/")).glob("[!_]*.py"))
    walked = Walk(Sources([folder, REPOSITORY / "src"], FACTS), {"vllm", "gptoss_bento"})
    walked.follow(*STARTED)
    walked.follow(*(name for name in warmups if "rocm" not in name))
    return walked


def missing(walked: Walk, lock: str) -> list[str]:
    """A line for each package that a start imports and a lock does not install, with the way to the import."""
    installed = locked(lock)
    return [
        f"{module} ({' or '.join(names)}) is not in the lock, and is imported before vLLM serves: "
        f"{' → '.join(map(str, walked.chain(module)))}"
        for module in _first_of_each_package(walked)
        if not (names := distributions(module)) & installed.keys()
    ]


def _first_of_each_package(walked: Walk) -> Iterator[str]:
    seen = set(NOT_AT_START)
    for module in walked.needed:
        package = module.split(".")[0]
        if package not in seen:
            seen.add(package)
            yield module


def distributions(module: str) -> set[str]:
    """The packages of PyPI that have a module of this name; several share a namespace such as `google`."""
    name = module.split(".")[0]
    return {canonicalize_name(each) for each in _installed_here().get(name, [_DISTRIBUTIONS.get(name, name)])}


_installed_here = cache(packages_distributions)


def locked(lock: str, python: str = "3.11") -> dict[str, str]:
    """The versions that a lock installs on Linux, by name."""
    pins = map(Requirement, re.findall(r"^\w.*", lock, re.MULTILINE))
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins if applies(pin, python)}


def applies(requirement: Requirement, python: str) -> bool:
    """Whether a requirement counts on Linux for this version of Python."""
    return not requirement.marker or requirement.marker.evaluate({**_MACHINE, "python_version": python, "extra": ""})


def main(folder: str, lock: str = "requirements/cuda.txt") -> int:
    """The number of packages that are missing."""
    walked = walk(Path(folder))
    lines = missing(walked, Path(lock).read_text())
    print(f"{len(walked.reached)} modules and functions reached; {len(lines)} packages are missing in {lock}")
    print("".join(f"  {line}\n" for line in lines), end="")
    for module, scope in walked.absent.items():
        print(f"  {module}, which {scope} imports, has no source there: compiled, or gone")
    return len(lines)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
