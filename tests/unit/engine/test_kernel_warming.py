from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gptoss_bento.artifacts import kernel_cache
from gptoss_bento.config import process_environment
from gptoss_bento.engine import kernel_warming, launcher
from gptoss_bento.engine.launcher import StartOptions
from gptoss_bento.errors import ArtifactError, EngineStartError, HardwareError
from gptoss_bento.workers.readiness import Readiness
from gptoss_bento.workers.worker_group import WorkerGroup
from tests.fakes import machine
from tests.unit.artifacts.test_kernel_cache import plan_in
from tests.unit.planning.test_kernel_key import plan_of


@dataclass
class FakeStart:
    """A fake of `engine.running`: keeps its arguments, and compiles one kernel."""

    folder: Path
    error: Exception | None = None
    argv: list[str] = field(default_factory=list)
    how: StartOptions | None = None
    ended: bool = False

    @asynccontextmanager
    async def __call__(
        self, argv: list[str], _: Readiness, __: float, group: WorkerGroup, how: StartOptions
    ) -> AsyncIterator[None]:
        assert group.is_alone
        self.argv, self.how = argv, how
        if self.error:
            raise self.error
        record = process_environment.compilations_file()
        assert record
        record.write_text(json.dumps({"kernel": "vllm.kernel", "seconds": 1.5}) + "\n")
        (self.folder / "triton").mkdir(parents=True)
        (self.folder / "triton" / "k").write_bytes(b"123")
        yield
        assert not (self.folder / kernel_cache.NAME).exists(), "the manifest is written when the engine has ended"
        self.ended = True


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeStart:
    monkeypatch.setattr(os, "environ", {"HOME": "/h"})
    monkeypatch.setattr(launcher, "running", fake := FakeStart(tmp_path / "kernels"))
    return fake


async def warm(start: FakeStart, **variables: str) -> Any:
    plan, kernels = kernel_warming.warmable(plan_in(start.folder, **variables))
    return await kernel_warming.warm(plan, "/model", kernels, 60)


async def test_folder_is_warm_for_the_plan_of_the_service_afterwards(start: FakeStart) -> None:
    entry = await warm(start)

    assert start.ended
    assert (entry.bytes, entry.warmup) == (3, True)
    assert kernel_cache.inspect(plan_in(start.folder, API_WORKERS="4"), start.folder).is_warm


async def test_engine_starts_with_the_plans_arguments_one_api_server_and_warm_up_requests(start: FakeStart) -> None:
    await warm(start, WARMUP="false", MAX_NUM_SEQS="77")

    assert start.argv == plan_in(start.folder, API_WORKERS="1", MAX_NUM_SEQS="77").argv("/model")
    assert start.how == StartOptions(preload=plan_in(start.folder).preload.value, warmup=True)


async def test_compilations_of_the_warm_up_are_reported(start: FakeStart, caplog: pytest.LogCaptureFixture) -> None:
    await warm(start)

    assert "kernels compiled or loaded at the start: 1 in 1.5 s (kernel 1.5 s)" in caplog.text


async def test_manifest_is_not_written_if_the_engine_does_not_start(start: FakeStart) -> None:
    start.error = EngineStartError("no")

    with pytest.raises(EngineStartError):
        await warm(start)
    assert not start.folder.exists()


async def test_records_of_the_start_are_removed(start: FakeStart) -> None:
    await warm(start)

    note = process_environment.exit_note_path()
    assert note
    assert not list(note.parent.glob(f"{note.stem}*"))


def test_machine_without_gpu_is_refused() -> None:
    with pytest.raises(HardwareError, match="no GPU"):
        kernel_warming.warmable(plan_of("demo", machine()))


def test_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ArtifactError, match="is not a folder; name another folder in KERNEL_CACHE_DIR"):
        kernel_warming.warmable(plan_in(tmp_path / "file"))
