"""The only probe of the machine: GPUs (NVIDIA through NVML, AMD through sysfs) or the CPU."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from gptoss_bento.errors import HardwareError

GIB = 1024**3
_AMD_VENDOR_ID = "0x1002"
_LEAST_AMD_BYTES = 8 * GIB  # less is graphics inside a processor, which vLLM cannot use


@dataclass(frozen=True)
class Gpu:
    """One GPU. `architecture` is `sm_90` and the like for NVIDIA, `amd` for AMD."""

    vendor: Literal["nvidia", "amd"]
    name: str
    memory_bytes: int
    architecture: str

    @property
    def memory_gib(self) -> float:
        return self.memory_bytes / GIB

    @property
    def compute_capability(self) -> float:
        """NVIDIA's number, such as 9.0; infinite for AMD, whose supported cards are all new enough."""
        number = self.architecture.removeprefix("sm_")
        return int(number) / 10 if number.isdecimal() else math.inf


@dataclass(frozen=True)
class Hardware:
    """What this process may use. No GPU means vLLM's CPU backend."""

    gpus: tuple[Gpu, ...]
    cpu_cores: int
    memory_bytes: int

    @property
    def smallest_gpu_gib(self) -> float:
        """Memory of the smallest GPU, which bounds every rank of a tensor-parallel group; 0 without GPU."""
        return min((gpu.memory_gib for gpu in self.gpus), default=0.0)

    def __str__(self) -> str:
        if self.gpus:
            return f"{len(self.gpus)} x {self.gpus[0].name} ({self.smallest_gpu_gib:.0f} GiB)"
        return f"no GPU; {self.cpu_cores} CPU cores, {self.memory_bytes / GIB:.0f} GiB of memory"


def probe(visible_devices: str | None = None) -> Hardware:
    """Looks at this machine.

    Args:
        visible_devices: the text of CUDA_VISIBLE_DEVICES, which NVML itself does not honour. None means all.
    """
    gpus = _nvidia_gpus(visible_devices) or _amd_gpus()
    return Hardware(gpus, len(os.sched_getaffinity(0)), psutil.virtual_memory().total)


def _nvidia_gpus(visible_devices: str | None) -> tuple[Gpu, ...]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver: not an error on a machine without GPU
        return ()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        uuids = [str(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles]
        return tuple(_nvidia_gpu(handles[index]) for index in visible_indexes(uuids, visible_devices))
    except pynvml.NVMLError as error:
        raise HardwareError(f"The NVIDIA driver does not answer: {error}") from None
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _nvidia_gpu(handle: object) -> Gpu:
    import pynvml

    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        vendor="nvidia",
        name=str(pynvml.nvmlDeviceGetName(handle)),
        memory_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
        architecture=f"sm_{major}{minor}",
    )


def visible_indexes(uuids: list[str], visible_devices: str | None) -> list[int]:
    """The device indexes that CUDA would see: numbers or UUID prefixes, up to the first that names no device."""
    if visible_devices is None:
        return list(range(len(uuids)))
    indexes: list[int] = []
    for item in filter(None, (part.strip() for part in visible_devices.split(","))):
        matches = [i for i, uuid in enumerate(uuids) if item == str(i) or uuid.startswith(item)]
        if not matches:
            break
        indexes.append(matches[0])
    return indexes


def _amd_gpus(devices: Path = Path("/sys/class/drm")) -> tuple[Gpu, ...]:
    found = []
    for card in sorted(devices.glob("card[0-9]*/device")):
        with suppress(OSError, ValueError):
            if (card / "vendor").read_text().strip() != _AMD_VENDOR_ID:
                continue
            memory = int((card / "mem_info_vram_total").read_text())
            if memory < _LEAST_AMD_BYTES:
                continue
            name = _read_or(card / "product_name", "AMD GPU")
            found.append(Gpu("amd", name, memory, "amd"))
    return tuple(found)


def _read_or(path: Path, default: str) -> str:
    try:
        return path.read_text().strip() or default
    except OSError:
        return default


# What changes while the machine runs: for `gptoss-bento doctor`, no part of a plan.


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver. `cuda` is the newest CUDA version it serves, or a cuda-compat library in front of it."""

    version: str
    cuda: tuple[int, int]


@dataclass(frozen=True)
class GpuProcess:
    """A process that computes on a GPU; its name is empty where another container hides it."""

    pid: int
    name: str
    memory_bytes: int | None


@dataclass(frozen=True)
class GpuUse:
    """What is free on a GPU now, and who has the rest. Of AMD's GPUs the processes are not known."""

    free_bytes: int
    processes: tuple[GpuProcess, ...] = ()


def nvidia_driver() -> Driver | None:
    """The driver, or None where there is none.

    Raises:
        HardwareError: a driver is installed, but does not answer; after an update, until the machine is restarted.
    """
    import pynvml

    absent = (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
    try:
        with _nvml():
            version = str(pynvml.nvmlSystemGetDriverVersion())
            cuda = int(pynvml.nvmlSystemGetCudaDriverVersion_v2())  # 13000 is 13.0
    except pynvml.NVMLError as error:
        if error.value in absent:
            return None
        raise HardwareError(f"The NVIDIA driver does not answer: {error}") from None
    return Driver(version, (cuda // 1000, cuda % 1000 // 10))


def gpu_use(visible_devices: str | None = None) -> tuple[GpuUse, ...]:
    """The use of each GPU, in the order of `probe(visible_devices).gpus`."""
    import pynvml

    try:
        with _nvml():
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
            uuids = [str(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles]
            return tuple(_nvidia_use(handles[index]) for index in visible_indexes(uuids, visible_devices))
    except pynvml.NVMLError:
        return _amd_use()


@contextmanager
def _nvml() -> Iterator[None]:
    import pynvml

    pynvml.nvmlInit()
    try:
        yield
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _nvidia_use(handle: object) -> GpuUse:
    import pynvml

    processes: tuple[GpuProcess, ...] = ()
    with suppress(pynvml.NVMLError):  # some virtual GPUs do not tell
        found = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        processes = tuple(GpuProcess(item.pid, _process_name(item.pid), item.usedGpuMemory) for item in found)
    return GpuUse(int(pynvml.nvmlDeviceGetMemoryInfo(handle).free), processes)


def _process_name(pid: int) -> str:
    with suppress(psutil.Error):
        return psutil.Process(pid).name()
    return ""


def _amd_use(devices: Path = Path("/sys/class/drm")) -> tuple[GpuUse, ...]:
    found = []
    for card in sorted(devices.glob("card[0-9]*/device")):
        with suppress(OSError, ValueError):
            total = int((card / "mem_info_vram_total").read_text())
            used = int((card / "mem_info_vram_used").read_text())
            if (card / "vendor").read_text().strip() == _AMD_VENDOR_ID and total >= _LEAST_AMD_BYTES:
                found.append(GpuUse(total - used))
    return tuple(found)
