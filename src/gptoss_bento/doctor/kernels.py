"""What is compiled at a start: whether it is kept and found again, and whether it can be compiled at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping

from gptoss_bento.artifacts import compilers
from gptoss_bento.artifacts.compilers import Tools
from gptoss_bento.artifacts.kernel_cache import nearest
from gptoss_bento.doctor.finding import Finding, error, note, ok, warning
from gptoss_bento.errors import EngineStartError
from gptoss_bento.planning.kernel_key import Kernels
from gptoss_bento.planning.plan import EnginePlan

_ROOM_BYTES = 2_000_000_000
"""Free space below which a cold folder is worth a warning: an allowance for one filling."""


def check_kernel_caches(kernels: Kernels, free_bytes: int | None = None) -> Iterator[Finding]:
    """Whether the folder of compiled kernels can be written, has room, and is warm for the plan.

    Args:
        free_bytes: on the disk of the folder; asked for, if not given.
    """
    name = "kernel caches"
    if kernels.unwritable:
        remedy = "Make the folder writable, or name another in KERNEL_CACHE_DIR."
        yield warning(name, f"{kernels.warnings[0]}; {kernels}", remedy)
    for problem in kernels.problems:
        yield warning(name, problem, "Make the folder writable, or unset the variable.")
    if kernels.warnings:
        return
    found = f"{kernels.folder}: {kernels}"
    free = shutil.disk_usage(nearest(kernels.folder)).free if free_bytes is None else free_bytes
    if kernels.is_warm:
        yield ok(name, found)
    elif free < _ROOM_BYTES:
        remedy = "Free some, or name another disk in KERNEL_CACHE_DIR."
        yield warning(name, f"{found}; {free / 1e9:.1f} GB are free there", remedy)
    else:
        yield note(name, found, "A volume keeps it; `gptoss-bento warm-caches` fills it beforehand.")


def check_compilers(plan: EnginePlan, variables: Mapping[str, str], tools: Tools = compilers.HERE) -> Iterator[Finding]:
    """Whether all compilers are here that a start of this plan needs; with filled caches that is none for Triton."""
    name, lacks = "compiler", list(compilers.lacks(plan, variables, tools))
    for lack in lacks:
        if lack.ends_start:
            yield error(name, str(lack), lack.remedy, EngineStartError)
        else:
            yield warning(name, str(lack), lack.remedy)
    if not lacks:
        c = compilers.c_compiler(variables, tools) or "no C compiler; Triton's cache has what it would be needed for"
        nvcc = compilers.nvcc(variables, tools) or "no nvcc, which nothing planned needs"
        yield ok(name, f"{c}; {nvcc}")
