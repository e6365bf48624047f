from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gptoss_bento.artifacts.compilers import without_all_reduce
from gptoss_bento.doctor.finding import Severity
from gptoss_bento.doctor.kernels import check_compilers, check_kernel_caches
from gptoss_bento.errors import EngineStartError
from tests.fakes import H200, machine
from tests.unit.artifacts.test_compilers import plan_on, tools
from tests.unit.planning.test_kernel_key import kernels

PLENTY = 10**12


def test_warm_folder_is_ok() -> None:
    (finding,) = check_kernel_caches(kernels(), PLENTY)

    assert finding.severity is Severity.OK
    assert finding.found == f"/kernels: {kernels()}"


def test_cold_folder_is_a_note_with_the_command_that_fills_it() -> None:
    (finding,) = check_kernel_caches(kernels(None, reason="nothing is there yet"), PLENTY)

    assert finding.severity is Severity.NOTE
    assert "warm-caches" in finding.remedy


def test_cold_folder_on_a_full_disk_is_a_warning() -> None:
    (finding,) = check_kernel_caches(kernels(None), 10**8)

    assert finding.severity is Severity.WARNING
    assert "0.1 GB are free there" in finding.found


def test_full_disk_does_not_matter_to_a_warm_folder() -> None:
    assert [finding.severity for finding in check_kernel_caches(kernels(), 0)] == [Severity.OK]


@pytest.mark.parametrize(
    "trouble",
    [
        {"unwritable": "/kernels cannot be written by uid 7", "replacement": Path("/t")},
        {"problems": ("TRITON_CACHE_DIR: /m cannot be written by uid 7",)},
    ],
)
def test_folder_that_cannot_be_written_is_a_warning(trouble: dict[str, Any]) -> None:
    (finding,) = check_kernel_caches(kernels(**trouble), PLENTY)

    assert finding.severity is Severity.WARNING
    assert "by uid 7" in finding.found
    assert finding.remedy


def test_compilers_that_are_here_are_named() -> None:
    (finding,) = check_compilers(plan_on(machine(H200)), {}, tools("gcc", "nvcc"))

    assert (finding.severity, finding.found) == (Severity.OK, "gcc; nvcc")


def test_nvcc_that_nothing_needs_is_not_missed() -> None:
    (finding,) = check_compilers(plan_on(machine(H200)), {}, tools("gcc"))

    assert (finding.severity, finding.found) == (Severity.OK, "gcc; no nvcc, which nothing planned needs")


def test_missing_compiler_is_the_error_with_which_the_start_would_end() -> None:
    (finding,) = check_compilers(plan_on(machine(H200)), {}, tools())

    assert finding.stops_with is EngineStartError


def test_compiler_without_which_all_is_only_slower_is_a_warning() -> None:
    plan = without_all_reduce(plan_on(machine(H200, H200)), {}, tools("gcc"))

    (finding,) = check_compilers(plan, {}, tools("gcc"))

    assert finding.severity is Severity.WARNING
