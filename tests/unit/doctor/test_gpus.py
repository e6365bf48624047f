from __future__ import annotations

from dataclasses import replace

import pytest

from gptoss_bento.config.profile import load_profile
from gptoss_bento.doctor.finding import Severity, exit_code
from gptoss_bento.doctor.gpus import check_driver, check_gpu_memory, check_gpu_processes, check_gpus
from gptoss_bento.hardware.probe import GIB, Driver, Gpu, GpuProcess, GpuUse
from tests.fakes import A100, H100, L4, T4, machine

MI300X = Gpu("amd", "MI300X", 192 * GIB, "amd")
LARGE = load_profile("gpt-oss-120b").requires
SMALL = load_profile("gpt-oss-20b").requires
ANY = load_profile("demo").requires


# Driver


@pytest.mark.parametrize("driver", [Driver("580.65.06", (13, 0)), Driver("590.1", (13, 1)), Driver("550.54", (13, 0))])
def test_driver_that_serves_cuda_13_is_fine(driver: Driver) -> None:
    """Also an old one with a cuda-compat library in front of it."""
    (finding,) = check_driver(driver, machine(H100))

    assert finding.severity is Severity.OK
    assert driver.version in finding.found


def test_old_driver_is_an_error_that_names_the_one_to_have() -> None:
    (finding,) = check_driver(Driver("570.124.06", (12, 8)), machine(H100))

    assert finding.found == "NVIDIA 570.124.06, CUDA 12.8; torch is built for CUDA 13.0"
    assert "580" in finding.remedy
    assert exit_code([finding]) == 70


def test_old_driver_of_hidden_gpus_does_not_matter() -> None:
    (finding,) = check_driver(Driver("570.124.06", (12, 8)), machine())

    assert finding.severity is Severity.NOTE


def test_machine_without_driver_needs_none() -> None:
    assert [finding.severity for finding in check_driver(None, machine())] == [Severity.OK]


def test_amds_driver_is_not_judged() -> None:
    assert [finding.severity for finding in check_driver(None, machine(MI300X))] == [Severity.NOTE]


# Number, architecture, memory


def test_gpus_that_suffice_are_described() -> None:
    (finding,) = check_gpus(machine(H100, H100), LARGE)

    assert finding.severity is Severity.OK
    assert finding.found == "2 x NVIDIA H100 80GB HBM3 (80 GiB), compute capability 9.0"


def test_amds_gpus_have_no_compute_capability() -> None:
    (finding,) = check_gpus(machine(MI300X), LARGE)

    assert finding.found == "1 x MI300X (192 GiB)"


def test_laptop_serves_the_demo() -> None:
    (finding,) = check_gpus(machine(), ANY)

    assert finding.severity is Severity.OK


@pytest.mark.parametrize(
    ("gpus", "found"),
    [
        ((), ["0 found, the profile needs 1"]),
        ((L4,), ["22.5 GiB of memory, the profile needs 75"]),
        ((L4, L4, L4), ["45.0 GiB of memory, the profile needs 75"]),
        ((T4,), ["Tesla T4 has compute capability 7.5, the profile needs 8.0", "15.0 GiB of memory"]),
    ],
)
def test_gpus_that_do_not_suffice_are_errors_with_each_reason(gpus: tuple[Gpu, ...], found: list[str]) -> None:
    findings = list(check_gpus(machine(*gpus), LARGE))

    assert len(findings) == len(found)
    for finding, words in zip(findings, found, strict=True):
        assert words in finding.found
        assert exit_code([finding]) == 78


def test_card_that_is_large_enough_may_be_too_old() -> None:
    (finding,) = check_gpus(machine(T4), SMALL)

    assert "compute capability 7.5" in finding.found


@pytest.mark.parametrize(
    ("architecture", "found"),
    [
        ("gfx90a", "MI250X has the architecture gfx90a, the profile needs cdna3 or cdna4 or rdna4"),
        ("gfx942", "1 x MI250X (128 GiB)"),
        ("amd", "1 x MI250X (128 GiB)"),  # the driver does not name it
    ],
)
def test_amd_architecture_must_be_one_that_the_profile_names(architecture: str, found: str) -> None:
    (finding,) = check_gpus(machine(Gpu("amd", "MI250X", 128 * GIB, architecture)), SMALL)

    assert finding.found == found
    assert (finding.severity is Severity.ERROR) is (architecture == "gfx90a")


# What is free


def free(gib: float) -> GpuUse:
    return GpuUse(int(gib * GIB))


def test_free_memory_that_suffices_is_fine() -> None:
    (finding,) = check_gpu_memory([H100, H100], [free(79), free(78)], 0.92)

    assert (finding.severity, finding.found) == (
        Severity.OK,
        "78.0 GiB free on each GPU, share to be claimed: 0.92",
    )


def test_free_memory_below_the_planned_share_names_the_gpu_and_a_share_that_would_do() -> None:
    (finding,) = check_gpu_memory([H100, H100], [free(79), free(40)], 0.92)

    assert finding.found == "GPU 1: 40.0 of 79.6 GiB free, GPU_MEMORY_UTILIZATION 0.92 claims 73.3"
    assert "GPU_MEMORY_UTILIZATION to 0.5 or less" in finding.remedy
    assert exit_code([finding]) == 70


def test_gpus_that_are_not_used_may_be_full() -> None:
    assert [one.severity for one in check_gpu_memory([A100], [free(79), free(0)], 0.9)] == [Severity.OK]


def test_driver_that_does_not_report_free_memory_is_a_note() -> None:
    assert [one.severity for one in check_gpu_memory([A100], [], 0.9)] == [Severity.NOTE]


# Who else is there


def test_processes_of_others_are_named_with_their_memory() -> None:
    uses = [free(70), replace(free(1), processes=(GpuProcess(42, "python", 3 * GIB), GpuProcess(7, "", None)))]

    (finding,) = check_gpu_processes(uses)

    assert finding.severity is Severity.WARNING
    assert finding.found == "GPU 1 is also used by python (pid 42, 3,072 MiB), a hidden process (pid 7)"
    assert "CUDA_VISIBLE_DEVICES" in finding.remedy


def test_gpus_of_our_own_are_fine() -> None:
    assert [finding.found for finding in check_gpu_processes([free(79)])] == ["none"]
