from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from gptoss_bento.errors import ConfigurationError, MachineError
from gptoss_bento.hardware import probe
from gptoss_bento.hardware.gpu_catalogue import known_cards
from gptoss_bento.hardware.probe import (
    GIB,
    Driver,
    Gpu,
    GpuProcess,
    GpuUse,
    Hardware,
    VisibleDevices,
    _Kernel,
    hardware_named,
    visible_indexes,
)
from tests.fakes import H100, H200, L4, T4, Calls, machine

UUIDS = ["GPU-aa11", "GPU-aa22", "GPU-bb33"]


class FakeNvml:
    """pynvml on a machine with these GPUs; None: without a driver."""

    class NVMLError(Exception):
        value = 15  # "GPU is lost", unless it is another

    def __init__(self, gpus: list[Gpu] | None, slices: dict[str, Gpu] | None = None) -> None:
        self._gpus = gpus
        self._slices = slices or {}  # of the first GPU, by MIG id; any puts it into MIG mode
        self.is_open = False

    def nvmlInit(self) -> None:  # noqa: N802
        if self._gpus is None:
            error = self.NVMLError("driver not loaded")
            error.value = 9
            raise error
        self.is_open = True

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.is_open = False

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self._gpus or [])

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Gpu:  # noqa: N802
        assert self._gpus is not None
        return self._gpus[index]

    def nvmlDeviceGetUUID(self, gpu: Gpu) -> str:  # noqa: N802
        assert self._gpus is not None
        return UUIDS[self._gpus.index(gpu)]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Gpu:  # noqa: N802
        if uuid not in self._slices:
            raise self.NVMLError("Not Found")
        return self._slices[uuid]

    def nvmlDeviceGetMigMode(self, gpu: Gpu) -> list[int]:  # noqa: N802
        if gpu.architecture == "sm_89":
            raise self.NVMLError("Not Supported")
        enabled = int(bool(self._slices) and gpu is (self._gpus or [])[0])
        return [enabled, enabled]

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu: Gpu) -> int:  # noqa: ARG002, N802
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: Gpu, index: int) -> Gpu:  # noqa: ARG002, N802
        if not 2 <= index < 2 + len(self._slices):
            raise self.NVMLError("Not Found")
        return list(self._slices.values())[index - 2]

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, gpu: Gpu) -> Gpu:  # noqa: N802
        if gpu not in self._slices.values():
            raise self.NVMLError("Invalid Argument")
        assert self._gpus is not None
        return self._gpus[0]

    def nvmlDeviceGetName(self, gpu: Gpu) -> str:  # noqa: N802
        return gpu.name

    def nvmlDeviceGetMemoryInfo(self, gpu: Gpu) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(total=gpu.memory_bytes)

    def nvmlDeviceGetCudaComputeCapability(self, gpu: Gpu) -> tuple[int, int]:  # noqa: N802
        digits = gpu.architecture.removeprefix("sm_")
        return int(digits[:-1]), int(digits[-1])


@pytest.fixture
def no_amd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_amd_gpus", lambda _: ())


def install(monkeypatch: pytest.MonkeyPatch, gpus: list[Gpu] | None, slices: dict[str, Gpu] | None = None) -> FakeNvml:
    nvml = FakeNvml(gpus, slices)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return nvml


# What is there


@pytest.mark.usefixtures("no_amd")
def test_nvidia_gpus_are_all_found(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = install(monkeypatch, [H100, L4])

    found = probe.probe()

    assert found.gpus == (H100, L4)
    assert found.cpu_cores >= 1
    assert found.memory_bytes > GIB // 4
    assert not nvml.is_open


@pytest.mark.usefixtures("no_amd")
def test_gpus_that_are_hidden_are_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, [H100, L4])

    assert probe.probe(VisibleDevices("1")).gpus == (L4,)


@pytest.mark.usefixtures("no_amd")
def test_machine_without_driver_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, None)

    assert probe.probe().gpus == ()


@pytest.mark.usefixtures("no_amd")
@pytest.mark.parametrize(
    "call",
    [
        "nvmlDeviceGetCount",
        "nvmlDeviceGetHandleByIndex",
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetName",
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetCudaComputeCapability",
    ],
)
def test_driver_that_does_not_answer_is_an_error_with_its_message(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = install(monkeypatch, [H100])

    def fail(*_: object) -> None:
        raise nvml.NVMLError("GPU is lost")

    monkeypatch.setattr(nvml, call, fail)

    with pytest.raises(MachineError, match=r"^The NVIDIA driver does not answer: GPU is lost$"):
        probe.probe()
    assert not nvml.is_open


SLICES = {
    "MIG-one": Gpu("nvidia", "NVIDIA H100 80GB HBM3 MIG 3g.40gb", 40 * GIB, "no other memory"),
    "MIG-two": Gpu("nvidia", "NVIDIA H100 80GB HBM3 MIG 1g.20gb", 20 * GIB, "no other memory"),
}


@pytest.mark.usefixtures("no_amd")
@pytest.mark.parametrize(("visible", "gib"), [("MIG-two", 20), ("MIG-one,MIG-two", 40), (" MIG-one ", 40)])
def test_mig_slice_is_a_gpu_with_its_own_memory(visible: str, gib: int, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, [H100, L4], SLICES)

    (found,) = probe.probe(VisibleDevices(visible)).gpus

    assert found.memory_gib == gib
    assert "MIG" in found.name
    assert found.architecture == "sm_90"  # that of its card


@pytest.mark.usefixtures("no_amd")
def test_unknown_mig_slice_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, [H100], SLICES)

    assert probe.probe(VisibleDevices("MIG-three")).gpus == ()


@pytest.mark.usefixtures("no_amd")
@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["NVIDIA H100 80GB HBM3 MIG 3g.40gb"]),
        ("0", ["NVIDIA H100 80GB HBM3 MIG 3g.40gb"]),
        ("1,0", ["NVIDIA H100 80GB HBM3 MIG 3g.40gb"]),
        ("1", ["NVIDIA L4"]),
    ],
)
def test_mig_slice_is_the_only_gpu_wherever_one_is_visible(
    visible: str | None, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, [H100, L4], SLICES)

    assert [gpu.name for gpu in probe.probe(VisibleDevices(visible)).gpus] == names


def compute_node(folder: Path, **properties: int) -> None:
    folder.mkdir(parents=True)
    (folder / "properties").write_text("".join(f"{name} {value}\n" for name, value in properties.items()))


@pytest.mark.parametrize(
    ("version", "architecture"), [(90402, "gfx942"), (90500, "gfx950"), (90010, "gfx90a"), (120001, "gfx1201")]
)
def test_amd_architecture_comes_from_the_compute_driver(version: int, architecture: str, tmp_path: Path) -> None:
    amd_card(tmp_path / "drm" / "card1", "0x1002", str(192 * GIB), None)
    (tmp_path / "drm" / "card1" / "device" / "drm" / "renderD128").mkdir(parents=True)
    compute_node(tmp_path / "nodes" / "0", gfx_target_version=0, drm_render_minor=0)  # the processor
    compute_node(tmp_path / "nodes" / "1", gfx_target_version=110000, drm_render_minor=129)  # another card
    compute_node(tmp_path / "nodes" / "2", simd_count=304, gfx_target_version=version, drm_render_minor=128)
    (tmp_path / "nodes" / "3").mkdir()  # may not be read

    (tmp_path / "dri").mkdir()
    (tmp_path / "dri" / "renderD128").touch()

    (found,) = probe._amd_gpus(kernel=_Kernel(tmp_path / "drm", tmp_path / "nodes", tmp_path / "dri"))

    assert found.architecture == architecture


def amd_card(folder: Path, vendor: str, memory: str | None, product: str | None) -> None:
    device = folder / "device"
    device.mkdir(parents=True)
    (device / "vendor").write_text(f"{vendor}\n")
    if memory is not None:
        (device / "mem_info_vram_total").write_text(f"{memory}\n")
    if product is not None:
        (device / "product_name").write_text(f"{product}\n")


def test_amd_gpus_are_found_in_sysfs(tmp_path: Path) -> None:
    amd_card(tmp_path / "card0", "0x8086", None, None)  # an Intel GPU
    amd_card(tmp_path / "card1", "0x1002", str(192 * GIB), "MI300X")
    amd_card(tmp_path / "card2", "0x1002", str(64 * GIB), None)
    amd_card(tmp_path / "card3", "0x1002", None, "shows no memory")
    amd_card(tmp_path / "card4", "0x1002", "unreadable", "odd")
    (tmp_path / "card1-DP-1" / "device").mkdir(parents=True)  # a connector

    amd_card(tmp_path / "card10", "0x1002", str(288 * GIB), "AMD Instinct MI355X")

    found = probe._amd_gpus(kernel=_Kernel(tmp_path, tmp_path / "absent"))

    assert found == (
        Gpu("amd", "MI300X", 192 * GIB, "gfx942"),  # by its name
        Gpu("amd", "AMD GPU", 64 * GIB, "amd"),
        Gpu("amd", "AMD Instinct MI355X", 288 * GIB, "gfx950"),
    )


@pytest.mark.parametrize(("memory", "counts"), [(GIB // 2, False), (8 * GIB - 1, False), (8 * GIB, True)])
def test_amd_graphics_inside_a_processor_do_not_count(memory: int, counts: bool, tmp_path: Path) -> None:
    amd_card(tmp_path / "card0", "0x1002", str(memory), "Radeon")

    assert bool(probe._amd_gpus(kernel=_Kernel(tmp_path))) is counts


@pytest.fixture
def twelve_amd_cards(tmp_path: Path) -> _Kernel:
    """Cards 0 to 11 with 100 to 111 GiB, of which 0 to 11 are in use, as sysfs shows a whole machine."""
    kernel = _Kernel(tmp_path / "drm", tmp_path / "nodes", tmp_path / "dri")
    kernel.files.mkdir()
    for index in range(12):
        amd_card(kernel.devices / f"card{index}", "0x1002", str((100 + index) * GIB), "AMD Instinct MI300X")
        device = kernel.devices / f"card{index}" / "device"
        (device / "mem_info_vram_used").write_text(f"{index * GIB}\n")
        (device / "unique_id").write_text(f"{0xA0 + index:016x}\n")
        (device / "drm" / f"renderD{128 + index}").mkdir(parents=True)
        (kernel.files / f"renderD{128 + index}").touch()
    return kernel


@pytest.mark.parametrize(
    ("visible", "cards"),
    [
        (VisibleDevices(), list(range(12))),
        (VisibleDevices(cuda=""), []),
        (VisibleDevices(cuda="10,2"), [10, 2]),
        (VisibleDevices(hip="1,0"), [1, 0]),
        (VisibleDevices(cuda="5", hip="6,7"), [6, 7]),
        (VisibleDevices(rocr="3,4,5"), [3, 4, 5]),
        (VisibleDevices(rocr="3,4,5", hip="2"), [5]),
        (VisibleDevices(rocr="3,4,5", cuda="1,0"), [4, 3]),
        (VisibleDevices(rocr="GPU-00000000000000ab,0"), [11, 0]),
        (VisibleDevices(rocr="GPU-00000000000000ff,0"), []),
    ],
)
def test_amd_visible_devices_and_free_memory_have_the_same_order(
    twelve_amd_cards: _Kernel, visible: VisibleDevices, cards: list[int]
) -> None:
    gpus = probe._amd_gpus(visible, twelve_amd_cards)

    assert [gpu.memory_bytes // GIB - 100 for gpu in gpus] == cards
    assert probe._amd_uses(visible, twelve_amd_cards) == (GpuUse(100 * GIB),) * len(cards)


def test_amd_gpus_without_a_device_file_are_of_another_container(twelve_amd_cards: _Kernel) -> None:
    for index in {*range(12)} - {3, 10}:
        (twelve_amd_cards.files / f"renderD{128 + index}").unlink()

    gpus = probe._amd_gpus(VisibleDevices(cuda="1,0"), twelve_amd_cards)

    assert [gpu.memory_bytes // GIB for gpu in gpus] == [110, 103]


def test_amd_free_memory_ends_before_the_first_gpu_that_does_not_report_it(twelve_amd_cards: _Kernel) -> None:
    (twelve_amd_cards.devices / "card2" / "device" / "mem_info_vram_used").unlink()

    assert len(probe._amd_uses(VisibleDevices(), twelve_amd_cards)) == 2


def test_amd_gpus_are_searched_where_there_is_no_nvidia(monkeypatch: pytest.MonkeyPatch) -> None:
    amd = Gpu("amd", "MI300X", 192 * GIB, "amd")
    install(monkeypatch, None)
    asked = Calls((amd,))
    monkeypatch.setattr(probe, "_amd_gpus", asked)

    assert probe.probe(VisibleDevices(hip="1")).gpus == (amd,)
    assert asked.made == [(VisibleDevices(hip="1"),)]


# What CUDA would see


@pytest.mark.parametrize(
    ("visible", "indexes"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("0", [0]),
        ("2,0", [2, 0]),
        (" 1 , 2 ", [1, 2]),
        ("GPU-bb33", [2]),
        ("GPU-bb", [2]),
        ("GPU-aa22,0", [1, 0]),
        ("-1", []),
        ("0,-1,1", [0]),
        ("0,7,1", [0]),
        ("GPU-zz", []),
    ],
)
def test_visible_devices_as_cuda_reads_them(visible: str | None, indexes: list[int]) -> None:
    assert visible_indexes(UUIDS, visible) == indexes


# The record


@pytest.mark.parametrize(
    ("architecture", "number"),
    [("sm_75", 7.5), ("sm_80", 8.0), ("sm_90", 9.0), ("sm_100", 10.0), ("sm_120", 12.0), ("amd", math.inf)],
)
def test_compute_capability_is_a_number_that_can_be_compared(architecture: str, number: float) -> None:
    assert Gpu("nvidia", "some", GIB, architecture).compute_capability == number


def test_smallest_gpu_bounds_the_memory() -> None:
    assert machine(H200, T4).smallest_gpu_gib == T4.memory_gib == 15.0


def test_smallest_gpu_of_none_has_no_memory() -> None:
    assert machine().smallest_gpu_gib == 0


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (machine(H100, H100), "2 x NVIDIA H100 80GB HBM3 (80 GiB)"),
        (machine(T4), "1 x Tesla T4 (15 GiB)"),
        (machine(H100, T4, H100), "2 x NVIDIA H100 80GB HBM3 (80 GiB) and 1 x Tesla T4 (15 GiB)"),
        (Hardware((), 8, 32 * GIB), "no GPU; 8 CPU cores, 32 GiB of memory"),
    ],
)
def test_hardware_is_shown_in_one_line(found: Hardware, text: str) -> None:
    assert str(found) == text


# Machines by name


@pytest.mark.parametrize("key", known_cards())
@pytest.mark.parametrize("count", [1, 8])
def test_cards_can_be_named_alone_and_with_a_count(key: str, count: int) -> None:
    found = hardware_named(key if count == 1 else f"{key}x{count}")

    card = known_cards()[key]
    assert len(found.gpus) == count
    assert {gpu.architecture for gpu in found.gpus} == {card.architecture}
    assert found.smallest_gpu_gib == card.memory_mib / 1024
    assert found.origin == "named"


@pytest.mark.parametrize(
    ("text", "architecture", "count"),
    [(" H100X2 ", "sm_90", 2), ("mi300x", "gfx942", 1), ("mi300x8", "gfx942", 8), ("mi300xx8", "gfx942", 8)],
)
def test_names_are_read_kindly(text: str, architecture: str, count: int) -> None:
    assert [gpu.architecture for gpu in hardware_named(text).gpus] == [architecture] * count


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("h10", "There is no card 'h10'; did you mean 'h100'?"),
        ("rtx-5090x2", "There is no card 'rtx-5090'; did you mean 'rtx5090'?"),
        ("zzzz", "There is no card 'zzzz'. Known: v100"),
        ("h100x0", "'h100x0' names no card; the number after x is at least 1."),
        ("", "There is no card ''"),
    ],
)
def test_unknown_card_is_answered_with_the_nearest(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        hardware_named(text)

    assert str(caught.value).startswith(message)


def test_gpu_knows_its_family() -> None:
    assert (H100.family, L4.family, T4.family) == ("hopper", "ada", "turing")
    assert Gpu("nvidia", "next", GIB, "sm_999").family == ""


# What changes while the machine runs


class FakeBusyNvml(FakeNvml):
    """With a driver's version, free memory, and processes by the index of the GPU. `failure`: nothing answers."""

    NVML_ERROR_DRIVER_NOT_LOADED = 9
    NVML_ERROR_LIBRARY_NOT_FOUND = 12

    class NVMLError(Exception):
        def __init__(self, value: int) -> None:
            super().__init__(f"code {value}")
            self.value = value

    def __init__(
        self,
        gpus: list[Gpu],
        cuda: int = 13000,
        failure: int | None = None,
        slices: dict[str, Gpu] | None = None,
    ) -> None:
        super().__init__(gpus, slices)
        self._cuda = cuda
        self._failure = failure
        self.processes: dict[str, list[SimpleNamespace]] = {}

    def nvmlInit(self) -> None:  # noqa: N802
        if self._failure is not None:
            raise self.NVMLError(self._failure)
        self.is_open = True

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "580.65.06"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:  # noqa: N802
        return self._cuda

    def nvmlDeviceGetMemoryInfo(self, gpu: Gpu) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(total=gpu.memory_bytes, free=gpu.memory_bytes - GIB)

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: Gpu) -> list[SimpleNamespace]:  # noqa: N802
        if gpu.name not in self.processes:
            raise self.NVMLError(3)
        return self.processes[gpu.name]


def install_busy(monkeypatch: pytest.MonkeyPatch, nvml: FakeBusyNvml) -> FakeBusyNvml:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return nvml


@pytest.mark.parametrize(("number", "version"), [(13000, (13, 0)), (12080, (12, 8)), (13020, (13, 2))])
def test_driver_reports_its_version_and_that_of_cuda(
    number: int, version: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml = install_busy(monkeypatch, FakeBusyNvml([H100], cuda=number))

    assert probe.nvidia_driver() == Driver("580.65.06", version)
    assert not nvml.is_open


@pytest.mark.parametrize("failure", [9, 12])
def test_driver_that_is_missing_is_no_error(failure: int, monkeypatch: pytest.MonkeyPatch) -> None:
    install_busy(monkeypatch, FakeBusyNvml([], failure=failure))

    assert probe.nvidia_driver() is None


def test_driver_that_was_updated_under_a_running_system_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    install_busy(monkeypatch, FakeBusyNvml([], failure=18))

    with pytest.raises(MachineError, match=r"^The NVIDIA driver does not answer: code 18\. .* restart the machine"):
        probe.nvidia_driver()


@pytest.mark.usefixtures("no_amd")
@pytest.mark.parametrize(
    ("failure", "advice"), [(4, "may not open /dev/nvidiactl"), (18, "was updated"), (999, "dmesg")]
)
def test_driver_that_cannot_be_used_is_an_error_with_a_way_out(
    failure: int, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_busy(monkeypatch, FakeBusyNvml([], failure=failure))

    with pytest.raises(MachineError, match=rf"^The NVIDIA driver does not answer: code {failure}\. .*{advice}"):
        probe.probe()
    with pytest.raises(MachineError, match=advice):
        probe.nvidia_driver()


@pytest.mark.usefixtures("no_amd")
def test_driver_that_fails_for_another_reason_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    install_busy(monkeypatch, FakeBusyNvml([], failure=20))

    with pytest.raises(MachineError, match=r"^The NVIDIA driver does not answer: code 20$"):
        probe.probe()


@pytest.mark.usefixtures("no_amd")
@pytest.mark.parametrize("visible", ["-1", ""])
def test_driver_that_cannot_be_used_is_no_error_where_its_gpus_are_hidden(
    visible: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_busy(monkeypatch, FakeBusyNvml([], failure=18))

    assert probe.probe(VisibleDevices(visible)).gpus == ()


@pytest.mark.usefixtures("no_amd")
@pytest.mark.parametrize("failure", [9, 12, 28])
def test_machine_with_no_driver_has_no_gpu_whatever_lacks(failure: int, monkeypatch: pytest.MonkeyPatch) -> None:
    install_busy(monkeypatch, FakeBusyNvml([], failure=failure))

    assert probe.probe().gpus == ()


def test_gpu_use_is_in_the_order_of_the_visible_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = install_busy(monkeypatch, FakeBusyNvml([H100, L4]))
    nvml.processes[L4.name] = [
        SimpleNamespace(pid=os.getpid(), usedGpuMemory=GIB),
        SimpleNamespace(pid=2**22 + 1, usedGpuMemory=None),  # beyond Linux's largest
    ]

    l4, h100 = probe.gpu_use(VisibleDevices("1,0"))

    assert l4.free_bytes == L4.memory_bytes - GIB
    assert l4.processes == (
        GpuProcess(os.getpid(), psutil.Process().name(), GIB),
        GpuProcess(2**22 + 1, "", None),
    )
    assert h100.processes == ()  # this one does not report them
    assert not nvml.is_open


@pytest.mark.parametrize(("visible", "free_gib"), [("MIG-two", 19), (None, 39), ("1", L4.memory_gib - 1)])
def test_mig_slice_has_its_own_free_memory(
    visible: str | None, free_gib: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_busy(monkeypatch, FakeBusyNvml([H100, L4], slices=SLICES))

    assert [use.free_bytes / GIB for use in probe.gpu_use(VisibleDevices(visible))] == [free_gib]


def test_gpu_use_is_empty_without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    install_busy(monkeypatch, FakeBusyNvml([], failure=12))
    monkeypatch.setattr(probe, "_amd_uses", lambda _: ())

    assert probe.gpu_use() == ()
