"""The container image of a Bento, as BentoML's image SDK takes it.

BentoML writes the Dockerfile: user, virtual environment, installation of the lock, the Bento, entry point. It has no
words for HEALTHCHECK, ARG or a secret, but it puts our commands behind `RUN` as they are. So each file of docker/ is a
piece of Dockerfile that begins with RUN, and goes there without that word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import bentoml

from gptoss_bento.config.profile import Profile
from gptoss_bento.errors import ConfigurationError
from gptoss_bento.paths import ROOT

_PIECES = Path(__file__).with_name("docker")
_LOCKS = ROOT / "requirements"


class Platform(StrEnum):
    """What the engine in the image is built for."""

    CPU = "cpu"
    CUDA = "cuda"
    ROCM = "rocm"


@dataclass(frozen=True)
class _Base:
    """An official image, the Python of the environment that BentoML makes in it, and our pieces before and after it."""

    image: str
    python: str
    before: str
    after: tuple[str, ...] = ("serve",)


_BASES = {
    Platform.CPU: _Base("python:3.11-slim-bookworm", "3.11", "cpu"),
    # The smallest of NVIDIA's images: its larger ones bring libraries that the lock brings anyway.
    Platform.CUDA: _Base("nvidia/cuda:13.0.2-base-ubuntu24.04", "3.11", "cuda"),
    # There are no wheels for ROCm on PyPI; vLLM's own image has Python 3.12.
    Platform.ROCM: _Base("vllm/vllm-openai-rocm:v0.32.0", "3.12", "rocm", ("rocm-installed", "serve")),
}


def choose_platform(profile: Profile | None, name: str | None) -> Platform:
    """The platform that was asked for, or the profile's first: CUDA if it needs a GPU, else CPU.

    Args:
        profile: None if the serving machine decides.
        name: the platform that the operator named.

    Raises:
        ConfigurationError: there is no such platform, or the profile cannot run on it.
    """
    possible = _platforms(profile)
    if name is None:
        return possible[0]
    if name not in possible:
        subject = f"profile {profile.name!r}" if profile else "a Bento without profile"
        raise ConfigurationError(f"platform: {name!r} is not possible for {subject}; possible: {', '.join(possible)}.")
    return Platform(name)


def _platforms(profile: Profile | None) -> list[Platform]:
    if profile is None:
        return [Platform.CUDA, Platform.ROCM, Platform.CPU]
    if not profile.requires.gpus:
        return [Platform.CPU, Platform.CUDA, Platform.ROCM]
    return [Platform.CUDA, *([Platform.ROCM] if profile.requires.amd_families else [])]


def image(platform: Platform) -> bentoml.images.Image:
    """The image for a platform, with the lock of requirements/, which is complete: nothing is resolved again."""
    base = _BASES[platform]
    lock = _LOCKS / f"{platform}.txt"
    # No distro: BentoML would install compilers and git for it.
    made = bentoml.images.Image(
        base_image=base.image, distro="", python_version=base.python, lock_python_packages=False
    )
    made.run(_piece(base.before, _uv_version(lock))).python_packages(lock.read_text().rstrip())
    for name in base.after:
        made.run(_piece(name, _uv_version(lock)))
    return made


def _uv_version(lock: Path) -> str:
    """The installer is pinned like what it installs."""
    match = re.search(r"^uv==(\S+)", lock.read_text(), re.MULTILINE)
    if match is None:
        raise ConfigurationError(f"{lock.name} names no version of uv; run scripts/lock.")
    return match[1]


def _piece(name: str, uv: str) -> str:
    """A file of docker/ from its first RUN on, without that word."""
    text = (_PIECES / f"{name}.dockerfile").read_text()
    return re.sub(r"\A(?:#.*\n)*RUN ", "", text).rstrip().replace("{uv}", uv)
