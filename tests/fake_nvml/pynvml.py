"""NVML on a machine that need not exist: FAKE_GPUS names its GPUs (`h100x4`; unset: no driver), FAKE_MIG=1 slices each.

With this folder on PYTHONPATH, BentoML's supervisor and the workers import it in place of the real pynvml.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import SimpleNamespace

from gptoss_bento.hardware.probe import Gpu, hardware_named

NVML_ERROR_NOT_FOUND, NVML_ERROR_DRIVER_NOT_LOADED, NVML_ERROR_LIBRARY_NOT_FOUND = 6, 9, 12


class NVMLError(Exception):
    """What the real one raises."""

    value = NVML_ERROR_NOT_FOUND


class NVMLError_LibraryNotFound(NVMLError):  # noqa: N801, N818
    """BentoML's allocator catches it by this name."""

    value = NVML_ERROR_LIBRARY_NOT_FOUND


class NVMLError_DriverNotLoaded(NVMLError):  # noqa: N801, N818
    """BentoML's allocator catches it by this name."""

    value = NVML_ERROR_DRIVER_NOT_LOADED


@dataclass(frozen=True)
class Handle:
    """A card, or the one MIG slice of it."""

    index: int
    is_slice: bool = False


def _gpus() -> tuple[Gpu, ...]:
    name = os.environ.get("FAKE_GPUS")
    return hardware_named(name).gpus if name else ()


def _is_sliced() -> bool:
    return bool(os.environ.get("FAKE_MIG"))


def nvmlInit() -> None:  # noqa: N802
    if not _gpus():
        raise NVMLError_LibraryNotFound


def nvmlShutdown() -> None:  # noqa: N802
    pass


def nvmlSystemGetDriverVersion() -> str:  # noqa: N802
    return "580.0"


def nvmlSystemGetCudaDriverVersion_v2() -> int:  # noqa: N802
    return 13000


def nvmlDeviceGetCount() -> int:  # noqa: N802
    return len(_gpus())


def nvmlDeviceGetHandleByIndex(index: int) -> Handle:  # noqa: N802
    return Handle(index)


def nvmlDeviceGetUUID(handle: Handle) -> str:  # noqa: N802
    return f"{'MIG' if handle.is_slice else 'GPU'}-{handle.index:08x}"


def nvmlDeviceGetHandleByUUID(uuid: str) -> Handle:  # noqa: N802
    handles = [Handle(index, is_slice=True) for index in range(len(_gpus()))]
    found = [handle for handle in handles if _is_sliced() and nvmlDeviceGetUUID(handle) == uuid]
    if not found:
        raise NVMLError("Not Found")
    return found[0]


def nvmlDeviceGetMigMode(_: Handle) -> list[int]:  # noqa: N802
    return [int(_is_sliced())] * 2


def nvmlDeviceGetMaxMigDeviceCount(_: Handle) -> int:  # noqa: N802
    return 7


def nvmlDeviceGetMigDeviceHandleByIndex(card: Handle, index: int) -> Handle:  # noqa: N802
    if index:
        raise NVMLError("Not Found")
    return Handle(card.index, is_slice=True)


def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle: Handle) -> Handle:  # noqa: N802
    if not handle.is_slice:
        raise NVMLError("Invalid Argument")
    return Handle(handle.index)


def nvmlDeviceGetName(handle: Handle) -> str:  # noqa: N802
    return _gpus()[handle.index].name


def nvmlDeviceGetMemoryInfo(handle: Handle) -> SimpleNamespace:  # noqa: N802
    total = _gpus()[handle.index].memory_bytes // (2 if handle.is_slice else 1)
    return SimpleNamespace(total=total, free=total)


def nvmlDeviceGetCudaComputeCapability(handle: Handle) -> tuple[int, int]:  # noqa: N802
    digits = _gpus()[handle.index].architecture.removeprefix("sm_")
    return int(digits[:-1]), int(digits[-1])
