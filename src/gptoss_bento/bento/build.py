"""`gptoss-bento build`: a Bento for each profile, through BentoML's own command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from gptoss_bento.bento.images import choose_platform
from gptoss_bento.config.profile import load_profile, profile_names
from gptoss_bento.errors import ConfigurationError, GptOssBentoError
from gptoss_bento.paths import ROOT

_SOURCE = ROOT  # the folder of bentofile.yaml


def build(profiles: Sequence[str] = (), platform: str | None = None, source: Path = _SOURCE) -> Iterator[str]:
    """Builds one Bento after the other and returns their tags: `gptoss-bento:PROFILE-TIME`.

    Args:
        profiles: names of configs/; none means all that can run on the platform.
        platform: what their images are for; None: what each profile needs.

    Raises:
        ConfigurationError: a profile or platform is not there, or this is not the repository. Nothing is built then.
        GptOssBentoError: BentoML refused to build.
    """
    if not (source / "bentofile.yaml").is_file():
        raise ConfigurationError(f"A Bento is built from the repository, and {source} has no bentofile.yaml.")
    for name in profiles:
        _check(name, platform)
    time = datetime.now(UTC).strftime("%Y%m%dt%H%M%S")
    return (_built(name, platform, f"{name}-{time}", source) for name in profiles or _possible(platform))


def _check(name: str, platform: str | None) -> None:
    if name.endswith((".yaml", ".yml")):
        raise ConfigurationError(f"{name!r} would not be in the Bento: put the file into configs/ and give its name.")
    choose_platform(load_profile(name), platform)


def _possible(platform: str | None) -> list[str]:
    """All profiles that can run on the platform."""
    possible = []
    for name in profile_names():
        try:
            choose_platform(load_profile(name), platform)
        except ConfigurationError:
            continue
        possible.append(name)
    return possible


def _built(name: str, platform: str | None, version: str, source: Path) -> str:
    words = ["--arg", f"profile={name}", *(["--arg", f"platform={platform}"] if platform else [])]
    command = [sys.executable, "-m", "bentoml", "build", *words, "--version", version, "--output", "tag"]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise GptOssBentoError(f"bentoml build of {name} failed:\n{(done.stderr or done.stdout).strip()}")
    return done.stdout.strip().removeprefix("__tag__:")
