"""Which compilers a start needs here, and what happens without one.

Sources: triton/runtime/build.py and backends/nvidia/driver.py of Triton 3.7.1; vllm/utils/flashinfer.py,
v1/sample/ops/topk_topp_sampler.py, layers/fused_moe/oracle/mxfp4.py, config/vllm.py and
distributed/device_communicators/flashinfer_all_reduce.py of vLLM 0.32.0; jit/core.py, jit/cpp_ext.py and
comm/trtllm_mnnvl_ar.py of FlashInfer 0.7.0.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from gptoss_bento.planning.kernel_key import TRITON
from gptoss_bento.planning.plan import EnginePlan, Planned

_TRITON_MODULE = f"*/cuda_utils{sysconfig.get_config_var('EXT_SUFFIX')}"  # in Triton's cache, by a hash of its source
_DEFAULT_CUDA = "/usr/local/cuda"
_SAMPLER = "VLLM_USE_FLASHINFER_SAMPLER"

ALL_REDUCE = "VLLM_ALLREDUCE_USE_FLASHINFER"
"""Whether several cards add up by FlashInfer's kernels; vLLM's default is 1."""


@dataclass(frozen=True)
class MissingTool:
    """Something that is not here: what follows from it for this plan, and what to install."""

    what: str
    follows: str
    remedy: str
    ends_start: bool = True

    def __str__(self) -> str:
        return f"{self.what}: {self.follows}"


def _locked_nvcc() -> Path | None:
    """The nvcc that came as a package, which nothing finds unless CUDA_HOME names its folder."""
    with suppress(metadata.PackageNotFoundError):
        for file in metadata.files("nvidia-cuda-nvcc") or ():
            if file.parts[-2:] == ("bin", "nvcc"):
                return Path(str(file.locate()))
    return None


def _python_header() -> Path:
    """The header that Triton's module includes; Debian has it in a separate package."""
    scheme = sysconfig.get_default_scheme()
    paths = sysconfig.get_paths("posix_prefix" if scheme == "posix_local" else scheme)  # as Triton finds it
    return Path(paths["include"]) / "Python.h"


@dataclass(frozen=True)
class Tools:
    """How tools are found; tests replace this."""

    which: Callable[[str], str | None] = shutil.which
    python_header: Callable[[], Path] = _python_header
    locked_nvcc: Callable[[], Path | None] = _locked_nvcc


HERE = Tools()


def without_all_reduce(plan: EnginePlan, variables: Mapping[str, str], tools: Tools = HERE) -> EnginePlan:
    """The plan without FlashInfer's all-reduce where it cannot be built. What the operator said of it stays.

    vLLM only asks whether FlashInfer can be imported, and has its module built in the first run of the model, where a
    failure ends the start. What was built before needs ninja and CUDA's folder all the same.
    """
    missing = _missing_for_flashinfer(variables, tools)
    if not missing or ALL_REDUCE in variables or not _reduces_by_flashinfer(plan, variables):
        return plan
    return replace(plan, environment={**plan.environment, ALL_REDUCE: Planned("0", " and ".join(missing))})


def lacks(plan: EnginePlan, variables: Mapping[str, str], tools: Tools = HERE) -> Iterator[MissingTool]:
    """What this plan needs and this machine does not have.

    Args:
        variables: those of the process.
    """
    if any(gpu.vendor == "nvidia" for gpu in plan.hardware.gpus):
        if not has_triton_module(plan):
            yield from _without_c(variables, tools)
        if needing := list(_needs_flashinfer(plan, variables)):
            yield from _without_nvcc(needing, variables, tools)


def has_triton_module(plan: EnginePlan) -> bool:
    """Whether Triton's cache has the module through which it launches kernels, all that it needs a compiler for."""
    with suppress(OSError):  # of a folder that this user may not read
        return next(Path(str(plan.environment[TRITON].value)).glob(_TRITON_MODULE), None) is not None
    return False


def c_compiler(variables: Mapping[str, str], tools: Tools = HERE) -> str | None:
    """The one that Triton takes: CC, gcc or clang; None if there is none."""
    named = variables.get("CC")
    return tools.which(named) if named is not None else tools.which("gcc") or tools.which("clang")


def _without_c(variables: Mapping[str, str], tools: Tools) -> Iterator[MissingTool]:
    follows = "Triton cannot build the module through which it launches kernels, and its cache does not have it"
    filled = "or fill KERNEL_CACHE_DIR where there is one (gptoss-bento warm-caches)"
    if c_compiler(variables, tools) is None:
        what = f"no C compiler (CC={variables['CC']})" if "CC" in variables else "no C compiler (gcc or clang)"
        yield MissingTool(what, follows, f"Debian, Ubuntu: apt-get install gcc libc6-dev; {filled}.")
    elif not os.path.isfile(header := tools.python_header()):  # noqa: PTH113  # which raises nothing
        yield MissingTool(f"no {header}", follows, f"Debian, Ubuntu: apt-get install python3-dev; {filled}.")


def nvcc(variables: Mapping[str, str], tools: Tools = HERE) -> str | None:
    """The one that vLLM and FlashInfer find: that of CUDA_HOME or CUDA_PATH, on the PATH, in /usr/local/cuda."""
    if home := variables.get("CUDA_HOME") or variables.get("CUDA_PATH"):
        return tools.which(f"{home}/bin/nvcc")
    return tools.which("nvcc") or tools.which(f"{_DEFAULT_CUDA}/bin/nvcc")


def _needs_flashinfer(plan: EnginePlan, variables: Mapping[str, str]) -> Iterator[tuple[str, bool]]:
    """(what of the plan has FlashInfer build kernels, whether a start ends without them)."""
    if (value := _value(plan, variables, _SAMPLER)) != "0":
        yield f"{_SAMPLER}={value}", True
    for name in ("moe_backend", "attention_backend"):
        planned: Any = plan.arguments[name].value if name in plan.arguments else ""
        if str(planned).lower().startswith("flashinfer"):
            yield f"{name} {planned}", True
    if _reduces_by_flashinfer(plan, variables):
        yield f"{ALL_REDUCE}={_value(plan, variables, ALL_REDUCE)} with several cards", True
    if _shares_on_flashinfers_cards(plan):
        yield "fusing all-reduce with normalization", False


def _value(plan: EnginePlan, variables: Mapping[str, str], name: str) -> str:
    """What vLLM will find, whose default for these variables is 1."""
    planned = plan.environment.get(name)
    return (str(planned.value) if planned else variables.get(name, "1")).strip()


def _shares_on_flashinfers_cards(plan: EnginePlan) -> bool:
    tensor = plan.arguments.get("tensor_parallel_size")
    cards = any(gpu.vendor == "nvidia" and 9 <= gpu.compute_capability < 11 for gpu in plan.hardware.gpus)
    return cards and tensor is not None and tensor.value > 1


def _reduces_by_flashinfer(plan: EnginePlan, variables: Mapping[str, str]) -> bool:
    ordered = variables.get("VLLM_BATCH_INVARIANT", "0").strip() == "1"
    return _shares_on_flashinfers_cards(plan) and not ordered and _value(plan, variables, ALL_REDUCE) != "0"


def _missing_for_flashinfer(variables: Mapping[str, str], tools: Tools) -> list[str]:
    found = (("nvcc", nvcc(variables, tools)), ("ninja", tools.which("ninja")))
    return [f"no {name}" for name, path in found if not path]


def _without_nvcc(needing: list[tuple[str, bool]], variables: Mapping[str, str], tools: Tools) -> Iterator[MissingTool]:
    if not (missing := _missing_for_flashinfer(variables, tools)):
        return
    ends = any(needed for _, needed in needing)
    wanted = ", ".join(what for what, needed in needing if needed or not ends)
    follows = "the start ends" if ends else "vLLM does it in two steps, which is slower"
    yield MissingTool(" and ".join(missing), f"FlashInfer needs it for {wanted}: {follows}", _remedy(tools), ends)


def _remedy(tools: Tools) -> str:
    if came := tools.locked_nvcc():
        return (
            f"CUDA_HOME={came.parent.parent} names the nvcc that is installed as a package; ninja belongs on the PATH."
        )
    return "Install CUDA's nvcc and name its folder in CUDA_HOME; ninja belongs on the PATH."
