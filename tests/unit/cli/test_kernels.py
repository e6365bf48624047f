from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gptoss_bento.artifacts import kernel_archive, kernel_cache, prepare
from gptoss_bento.artifacts.prepare import Artifacts
from gptoss_bento.cli import kernels as cli_kernels
from gptoss_bento.engine import kernel_warming
from gptoss_bento.errors import ArtifactError, ConfigurationError, HardwareError
from gptoss_bento.hardware import probe
from gptoss_bento.planning.kernel_key import Entry, Kernels
from tests.fakes import H200, Calls, machine
from tests.unit.artifacts.test_kernel_archive import filled
from tests.unit.command_line import invoke
from tests.unit.planning.test_kernel_key import ENTRY

pytestmark = pytest.mark.usefixtures("plain_machine")


@pytest.fixture
def folder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """KERNEL_CACHE_DIR on a machine with an H200."""
    request.getfixturevalue("plain_machine")  # first: it has no GPU
    monkeypatch.setattr(probe, "probe", lambda _: machine(H200))
    monkeypatch.setattr(cli_kernels, "console", Console(width=200))
    os.environ["KERNEL_CACHE_DIR"] = str(tmp_path / "kernels")
    return tmp_path / "kernels"


@pytest.fixture
def warmed(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Calls:
    """A fake of the engine's start."""

    async def warm(_: Any, __: str, kernels: Kernels, ___: float) -> Entry:
        return kernel_cache.filled(kernels, 123, warmup=True)

    calls = Calls(compute=warm)
    monkeypatch.setattr(kernel_warming, "warm", calls)
    monkeypatch.setattr(prepare, "prepare", Calls(Artifacts("/models/m", folder.parent)))
    return calls


def test_warm_caches_fills_the_folder_and_prints_the_key(warmed: Calls, folder: Path) -> None:
    result = invoke("warm-caches", "--profile", "gpt-oss-20b")

    assert result.exit_code == 0, result.output
    assert str(folder) in result.output
    assert "NVIDIA H200" in result.output
    ((plan, model, _, timeout_s),) = warmed.made
    assert (plan.profile, model, timeout_s) == ("gpt-oss-20b", "/models/m", 1200)
    assert os.environ["TRITON_CACHE_DIR"] == str(folder / "triton")


def test_warm_caches_starts_nothing_when_the_folder_is_warm(warmed: Calls) -> None:
    invoke("warm-caches", "--profile", "gpt-oss-20b")
    result = invoke("warm-caches", "--profile", "gpt-oss-20b")

    assert result.exit_code == 0, result.output
    assert "Nothing to do" in result.output
    assert len(warmed.made) == 1


@pytest.mark.usefixtures("warmed")
def test_warm_caches_packs_the_folder(tmp_path: Path) -> None:
    file = tmp_path / "k.tar.gz"

    result = invoke("warm-caches", "--profile", "gpt-oss-20b", "--output", str(file))

    assert result.exit_code == 0, result.output
    assert str(file) in result.output
    assert kernel_archive.unpack(file, tmp_path / "there")


def test_warm_caches_refuses_an_unknown_format_before_it_starts(warmed: Calls) -> None:
    result = invoke("warm-caches", "--profile", "gpt-oss-20b", "--output", "k.zip")

    assert isinstance(result.exception, ConfigurationError)
    assert not warmed.made


def test_warm_caches_refuses_a_machine_without_gpu() -> None:
    assert isinstance(invoke("warm-caches", "--profile", "demo").exception, HardwareError)


@pytest.mark.usefixtures("warmed")
def test_warm_caches_reports_a_manifest_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(kernel_cache, "write", fail)

    error = invoke("warm-caches", "--profile", "gpt-oss-20b").exception

    assert isinstance(error, ArtifactError)
    assert "kernels.json cannot be written: disk full" in str(error)


def test_warm_caches_unpacks_without_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_kernels, "console", Console(width=200))
    kernel_archive.pack(filled(tmp_path / "here"), tmp_path / "k.tar.gz")
    os.environ.update(KERNEL_CACHE_DIR=str(tmp_path / "there"), PROFILE="gpt-oss-20b")

    result = invoke("warm-caches", "--unpack", str(tmp_path / "k.tar.gz"))

    assert result.exit_code == 0, result.output
    assert "1a2b3c4d" in result.output
    assert (tmp_path / "there" / "triton" / "hash" / "k.cubin").is_file()


@pytest.mark.usefixtures("warmed")
def test_plan_shows_whether_the_folder_is_warm(folder: Path) -> None:
    before = invoke("plan", "--profile", "gpt-oss-20b").output
    invoke("warm-caches", "--profile", "gpt-oss-20b")
    after = invoke("plan", "--profile", "gpt-oss-20b").output

    assert f"{folder} (cold: the first start compiles for minutes; nothing is there yet; NVIDIA H200" in before
    assert f"{folder} (warm: NVIDIA H200" in after


def test_plan_for_another_machine_does_not_mention_this_folder(folder: Path) -> None:
    folder.mkdir()
    kernel_cache.write(folder, (replace(ENTRY),))

    output = invoke("plan", "--gpu", "h100").output

    assert "warm:" not in output
    assert "cold:" not in output
