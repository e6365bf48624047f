"""The only probe of the machine: GPUs (NVIDIA through NVML, AMD through sysfs) or the CPU."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import psutil

from gptoss_bento.errors import ConfigurationError, MachineError
from gptoss_bento.hardware.gpu_catalogue import family_of, known_cards, recognised
from gptoss_bento.spelling import nearest

GIB = 1024**3
MIB = 1024**2
_AMD_VENDOR_ID = "0x1002"
_LEAST_AMD_BYTES = 8 * GIB  # less is graphics inside a processor, which vLLM cannot use


@dataclass(frozen=True)
class Gpu:
    """One GPU, or one MIG slice of it.

    `architecture` is `sm_90` and the like for NVIDIA, `gfx942` and the like for AMD; `amd` if the driver does not say.
    """

    vendor: Literal["nvidia", "amd"]
    name: str
    memory_bytes: int
    architecture: str

    @property
    def memory_gib(self) -> float:
        return self.memory_bytes / GIB

    @property
    def compute_capability(self) -> float:
        """NVIDIA's number, such as 9.0; infinite for AMD, whose architectures have names instead."""
        number = self.architecture.removeprefix("sm_")
        return int(number) / 10 if number.isdecimal() else math.inf

    @property
    def family(self) -> str:
        """`hopper`, `cdna3`, …; empty where gpus.yaml does not know the architecture."""
        return family_of(self.architecture)


@dataclass(frozen=True)
class Hardware:
    """What this process may use. No GPU means vLLM's CPU backend."""

    gpus: tuple[Gpu, ...]
    cpu_cores: int
    memory_bytes: int
    origin: str = "probed"

    @property
    def smallest_gpu_gib(self) -> float:
        """Memory of the smallest GPU, which bounds every rank of a tensor-parallel group; 0 without GPU."""
        return min((gpu.memory_gib for gpu in self.gpus), default=0.0)

    def __str__(self) -> str:
        if self.gpus:
            kinds = Counter(f"{gpu.name} ({gpu.memory_gib:.0f} GiB)" for gpu in self.gpus)
            return " and ".join(f"{count} x {kind}" for kind, count in kinds.items())
        return f"no GPU; {self.cpu_cores} CPU cores, {self.memory_bytes / GIB:.0f} GiB of memory"


@dataclass(frozen=True)
class VisibleDevices:
    """The variables that limit the GPUs a process sees, which NVML and sysfs do not honour; None: not set.

    `cuda` is CUDA_VISIBLE_DEVICES. For AMD `hip`, HIP_VISIBLE_DEVICES, wins over it, and both choose among what `rocr`,
    ROCR_VISIBLE_DEVICES, leaves. Source: ROCm's documentation, "GPU isolation techniques".
    """

    cuda: str | None = None
    hip: str | None = None
    rocr: str | None = None


ALL_DEVICES = VisibleDevices()


def probe(visible: VisibleDevices = ALL_DEVICES) -> Hardware:
    """Describes this machine, as far as a process with these variables sees it.

    Raises:
        MachineError: a driver is installed, but does not answer.
    """
    gpus = _nvidia_gpus(visible.cuda) or _amd_gpus(visible)
    return Hardware(gpus, len(os.sched_getaffinity(0)), psutil.virtual_memory().total)


def hardware_named(text: str) -> Hardware:
    """A machine that need not exist: `h100`, or `h100x2` for two of them.

    Raises:
        ConfigurationError: no such card (the nearest known one is given), or a count below 1.
    """
    name = text.strip().lower()
    match = re.fullmatch(r"(?P<card>.+?)x(?P<count>\d+)", name)
    key, count = (name, 1) if name in known_cards() or not match else (match["card"], int(match["count"]))
    if f"{key}x" in known_cards():  # `mi300x8`: the x of the name is also that of the count
        key = f"{key}x"
    if key not in known_cards():
        raise ConfigurationError(_no_such_card(key))
    if count < 1:
        raise ConfigurationError(f"{text!r} names no card; the number after x is at least 1.")
    card = known_cards()[key]
    gpu = Gpu(card.vendor, card.names[0], card.memory_mib * MIB, card.architecture)
    return Hardware((gpu,) * count, cpu_cores=0, memory_bytes=0, origin="named")


def _no_such_card(key: str) -> str:
    close = nearest(key, known_cards(), 0.4)
    hint = f"; did you mean {close!r}?" if close else "."
    return f"There is no card {key!r}{hint} Known: {', '.join(known_cards())}; two of them are written like h100x2."


def _nvidia_gpus(visible_devices: str | None) -> tuple[Gpu, ...]:
    """Those that CUDA would see; none on a machine without driver.

    Raises:
        MachineError: there is a driver, and it does not answer. The CPU in its place would be slow without a word.
    """
    import pynvml

    try:
        with _nvml():
            return tuple(_nvidia_gpu(handle) for handle in _visible_handles(pynvml, visible_devices))
    except pynvml.NVMLError as error:
        if error.value in _NO_DRIVER or _hides_all(visible_devices):
            return ()
        raise _unanswering_driver(error) from None


def _hides_all(visible_devices: str | None) -> bool:
    return visible_devices is not None and visible_devices.split(",")[0].strip() in ("", "-1")


# NVML's error codes, by its header nvml.h. What others mean is not for an operator.
_NO_DRIVER = frozenset([9, 12, 28])  # no kernel module, no library, no GPU
_WAYS_OUT = {
    4: "This process may not open /dev/nvidiactl, /dev/nvidia0 and so on: run it as a user or in a container that may",
    18: "The driver was updated while the system ran: restart the machine; in a container: its library of the driver "
    "has another version than the host's driver",
    999: "A container can lose its GPUs while it runs: restart it. Otherwise nvidia-smi and dmesg show more",
}


def _unanswering_driver(error: Any) -> MachineError:
    found = f"The NVIDIA driver does not answer: {error}"
    if error.value not in _WAYS_OUT:
        return MachineError(found)
    return MachineError(f"{found}. {_WAYS_OUT[error.value]}. CUDA_VISIBLE_DEVICES=-1 does without GPUs.")


def _visible_handles(nvml: Any, visible_devices: str | None) -> list[Any]:
    """NVML's handles of what CUDA would see: cards, or a single MIG slice, beside which it shows nothing else.

    Source: NVIDIA's MIG user guide, "CUDA Device Enumeration".
    """
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    uuids = [str(nvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    if handles and (slice_id := _mig_id(visible_devices)):
        with suppress(nvml.NVMLError):  # no such slice: CUDA sees nothing then
            return [nvml.nvmlDeviceGetHandleByUUID(slice_id)]
        return []
    visible = [handles[index] for index in visible_indexes(uuids, visible_devices)]
    slices = (found for handle in visible if (found := _first_slice(nvml, handle)))
    return list(islice(slices, 1)) or visible


def _mig_id(visible_devices: str | None) -> str:
    """The MIG slice that CUDA_VISIBLE_DEVICES begins with. CUDA uses one slice a process and ignores what follows."""
    first = (visible_devices or "").split(",")[0].strip()
    return first if first.startswith("MIG-") else ""


def _first_slice(nvml: Any, handle: Any) -> Any:
    """The first MIG slice of a card in MIG mode; None for all others, also those that know no MIG."""
    with suppress(nvml.NVMLError):
        if nvml.nvmlDeviceGetMigMode(handle)[0]:
            for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
                with suppress(nvml.NVMLError):  # an index without slice
                    return nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
    return None


def _nvidia_gpu(handle: Any) -> Gpu:
    import pynvml

    try:  # a slice knows its memory, but only its card knows the architecture
        card = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
    except pynvml.NVMLError:
        card = handle
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(card)
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


@dataclass(frozen=True)
class _Kernel:
    """Where Linux shows AMD's cards: their attributes, the compute driver's topology, and the device files."""

    devices: Path = Path("/sys/class/drm")
    nodes: Path = Path("/sys/class/kfd/kfd/topology/nodes")
    files: Path = Path("/dev/dri")


_KERNEL = _Kernel()


@dataclass(frozen=True)
class _AmdCard:
    """A card that can compute: its folder in sysfs, its memory, and the name of its device file, if it has one."""

    folder: Path
    memory_bytes: int
    render: str

    @property
    def uuid(self) -> str:
        """Its name for ROCr and HIP; empty if the driver does not say."""
        unique = _read_or(self.folder / "unique_id", "")
        return unique and f"GPU-{unique}"


def _amd_gpus(visible: VisibleDevices = ALL_DEVICES, kernel: _Kernel = _KERNEL) -> tuple[Gpu, ...]:
    architectures = dict(_amd_architectures(kernel.nodes))
    return tuple(_amd_gpu(card, architectures) for card in _visible_amd_cards(visible, kernel))


def _amd_gpu(card: _AmdCard, architectures: Mapping[str, str]) -> Gpu:
    name = _read_or(card.folder / "product_name", "AMD GPU")
    return Gpu("amd", name, card.memory_bytes, architectures.get(card.render) or _architecture_by_name(name))


def _visible_amd_cards(visible: VisibleDevices, kernel: _Kernel) -> list[_AmdCard]:
    hip = visible.cuda if visible.hip is None else visible.hip
    return _chosen(_chosen(_amd_cards(kernel), visible.rocr), hip)


def _chosen(cards: list[_AmdCard], visible_devices: str | None) -> list[_AmdCard]:
    return [cards[index] for index in visible_indexes([card.uuid for card in cards], visible_devices)]


def _amd_cards(kernel: _Kernel) -> list[_AmdCard]:
    folders = sorted(kernel.devices.glob("card[0-9]*/device"), key=lambda path: _numbers(path.parent.name))
    return [card for folder in folders if (card := _amd_card(folder, kernel.files))]


def _amd_card(folder: Path, files: Path) -> _AmdCard | None:
    """The card of this folder, if it is AMD's and large enough.

    In a container sysfs shows all cards of the machine, but there are device files only of those it was given.
    """
    with suppress(OSError, ValueError):
        memory = int((folder / "mem_info_vram_total").read_text())
        render = next((path.name for path in folder.glob("drm/renderD*")), "")
        is_amd = (folder / "vendor").read_text().strip() == _AMD_VENDOR_ID
        if is_amd and memory >= _LEAST_AMD_BYTES and (not render or (files / render).exists()):
            return _AmdCard(folder, memory, render)
    return None


def _amd_architectures(nodes: Path) -> Iterator[tuple[str, str]]:
    """(render device, architecture) of each GPU that the compute driver knows.

    Source: amdgpu's KFD topology; `gfx_target_version` is 90402 for gfx942: major, minor, stepping, the last two of
    which LLVM writes as one hexadecimal digit each.
    """
    for path in nodes.glob("*/properties"):
        with suppress(OSError, ValueError, KeyError):
            values = dict(line.split() for line in path.read_text().splitlines())
            version = int(values["gfx_target_version"])
            if version:  # 0: a processor
                gfx = f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"
                yield f"renderD{int(values['drm_render_minor'])}", gfx


def _architecture_by_name(name: str) -> str:
    key = recognised(name)
    return known_cards()[key].architecture if key else "amd"


def _numbers(text: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", text)]


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
    """What is free on a GPU now, and which processes have the rest. Of AMD's GPUs the processes are not known."""

    free_bytes: int
    processes: tuple[GpuProcess, ...] = ()


def nvidia_driver() -> Driver | None:
    """The driver, or None where there is none.

    Raises:
        MachineError: a driver is installed, but does not answer; after an update, until the machine is restarted.
    """
    import pynvml

    try:
        with _nvml():
            version = str(pynvml.nvmlSystemGetDriverVersion())
            cuda = int(pynvml.nvmlSystemGetCudaDriverVersion_v2())  # 13000 is 13.0
    except pynvml.NVMLError as error:
        if error.value in _NO_DRIVER:
            return None
        raise _unanswering_driver(error) from None
    return Driver(version, (cuda // 1000, cuda % 1000 // 10))


def gpu_use(visible: VisibleDevices = ALL_DEVICES) -> tuple[GpuUse, ...]:
    """The use of each GPU, in the order of `probe(visible).gpus`, up to the first that does not report it."""
    return _nvidia_uses(visible.cuda) or _amd_uses(visible)


def _nvidia_uses(visible_devices: str | None) -> tuple[GpuUse, ...]:
    import pynvml

    with suppress(pynvml.NVMLError), _nvml():
        return tuple(_nvidia_use(handle) for handle in _visible_handles(pynvml, visible_devices))
    return ()


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
    with suppress(pynvml.NVMLError):  # some virtual GPUs do not report it
        found = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        processes = tuple(GpuProcess(item.pid, _process_name(item.pid), item.usedGpuMemory) for item in found)
    return GpuUse(int(pynvml.nvmlDeviceGetMemoryInfo(handle).free), processes)


def _process_name(pid: int) -> str:
    with suppress(psutil.Error):
        return psutil.Process(pid).name()
    return ""


def _amd_uses(visible: VisibleDevices, kernel: _Kernel = _KERNEL) -> tuple[GpuUse, ...]:
    uses = []
    with suppress(OSError, ValueError):
        for card in _visible_amd_cards(visible, kernel):
            used = int((card.folder / "mem_info_vram_used").read_text())
            uses.append(GpuUse(card.memory_bytes - used))
    return tuple(uses)
