"""The driver and the GPUs, against what torch, the profile and the plan need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gptoss_bento.config.profile import Requirements, largest_group
from gptoss_bento.doctor.finding import Finding, error, note, ok, warning
from gptoss_bento.errors import EngineStartError, HardwareError
from gptoss_bento.hardware.probe import GIB, MIB, Driver, Gpu, GpuProcess, GpuUse, Hardware

# vLLM 0.32 pins torch 2.13, whose wheels are built for CUDA 13.0. NVIDIA's CUDA 13 release notes ask for driver 580.
TORCH_CUDA = (13, 0)
LEAST_DRIVER = "580"


def check_driver(driver: Driver | None, hardware: Hardware) -> Iterator[Finding]:
    """Whether the driver serves the CUDA version that torch is built for."""
    if driver is None:
        amd = any(gpu.vendor == "amd" for gpu in hardware.gpus)
        yield note("driver", "AMD's driver is not compared") if amd else ok("driver", "none, and no GPU")
        return
    found = f"NVIDIA {driver.version}, CUDA {_dotted(driver.cuda)}"
    if driver.cuda >= TORCH_CUDA:
        yield ok("driver", found)
        return
    remedy = f"Install driver {LEAST_DRIVER} or newer, or a cuda-compat package for CUDA {_dotted(TORCH_CUDA)}."
    needed = f"{found}; torch is built for CUDA {_dotted(TORCH_CUDA)}"
    yield error("driver", needed, remedy, EngineStartError) if hardware.gpus else note("driver", needed, remedy)


def check_gpus(hardware: Hardware, requires: Requirements) -> Iterator[Finding]:
    """Number, architecture and memory of the GPUs against the least that the profile's model needs."""
    problems = list(_lacking(hardware, requires))
    for problem in problems:
        yield error("GPU", problem, "Take a larger or newer GPU, or another PROFILE.", HardwareError)
    if not problems:
        newest = {f"{gpu.compute_capability:.1f}" for gpu in hardware.gpus if gpu.vendor == "nvidia"}
        capability = f", compute capability {', '.join(sorted(newest))}" if newest else ""
        yield ok("GPU", f"{hardware}{capability}")


def _lacking(hardware: Hardware, requires: Requirements) -> Iterator[str]:
    if len(hardware.gpus) < requires.gpus:
        yield f"{len(hardware.gpus)} found, the profile needs {requires.gpus}"
        return
    for gpu in hardware.gpus:
        if not requires.are_met_by_kind(gpu):
            yield _too_old(gpu, requires)
    usable = largest_group(len(hardware.gpus)) * hardware.smallest_gpu_gib
    if usable < requires.total_gpu_memory_gib:
        yield f"{usable:.1f} GiB of memory, the profile needs {requires.total_gpu_memory_gib:g} ({requires.reason})"


def _too_old(gpu: Gpu, requires: Requirements) -> str:
    if gpu.vendor == "amd":
        needed = " or ".join(requires.amd_families)
        return f"{gpu.name} has the architecture {gpu.architecture}, the profile needs {needed}"
    return (
        f"{gpu.name} has compute capability {gpu.compute_capability:.1f}, "
        f"the profile needs {requires.compute_capability:.1f}"
    )


def check_gpu_memory(gpus: Sequence[Gpu], uses: Sequence[GpuUse], utilization: float) -> Iterator[Finding]:
    """Whether as much is free as vLLM will claim.

    Args:
        gpus: those that the plan uses, a prefix of what is visible.
        utilization: the planned share of a GPU's whole memory; vLLM refuses to start with less free.
    """
    if len(uses) < len(gpus):
        yield note("GPU memory", "the driver does not report how much is free")
        return
    tight = [
        (index, gpu, use)
        for index, (gpu, use) in enumerate(zip(gpus, uses, strict=False))
        if use.free_bytes < utilization * gpu.memory_bytes
    ]
    for index, gpu, use in tight:
        found = (
            f"GPU {index}: {use.free_bytes / GIB:.1f} of {gpu.memory_gib:.1f} GiB free, "
            f"GPU_MEMORY_UTILIZATION {utilization:g} claims {utilization * gpu.memory_gib:.1f}"
        )
        yield error("GPU memory", found, _more_memory(gpu, use), EngineStartError)
    if gpus and not tight:
        free = min(use.free_bytes for use in uses[: len(gpus)]) / GIB
        yield ok("GPU memory", f"{free:.1f} GiB free on each GPU, share to be claimed: {utilization:g}")


def _more_memory(gpu: Gpu, use: GpuUse) -> str:
    possible = int(use.free_bytes / gpu.memory_bytes * 100) / 100
    return f"End what uses this GPU, or set GPU_MEMORY_UTILIZATION to {possible:g} or less if the model still fits."


def check_gpu_processes(uses: Sequence[GpuUse]) -> Iterator[Finding]:
    """Other processes that compute on these GPUs."""
    busy = [(index, use.processes) for index, use in enumerate(uses) if use.processes]
    for index, processes in busy:
        found = f"GPU {index} is also used by {', '.join(map(_described, processes))}"
        yield warning("GPU processes", found, "End them, or choose other GPUs with CUDA_VISIBLE_DEVICES.")
    if uses and not busy:
        yield ok("GPU processes", "none")


def _described(process: GpuProcess) -> str:
    memory = "" if process.memory_bytes is None else f", {process.memory_bytes // MIB:,} MiB"
    return f"{process.name or 'a hidden process'} (pid {process.pid}{memory})"


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
