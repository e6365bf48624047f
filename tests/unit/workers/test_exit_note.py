from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from gptoss_bento.errors import (
    AddressInUseError,
    ArtifactError,
    ConfigurationError,
    EngineDiedError,
    EngineStartError,
    GptOssBentoError,
    HardwareError,
    MachineError,
    WorkerDiedError,
)
from gptoss_bento.workers import exit_note
from gptoss_bento.workers.exit_note import ExitNote
from tests.fakes import Calls
from tools.full_disk import small_file_system


def test_exit_note_has_code_and_cause(tmp_path: Path) -> None:
    note = ExitNote(tmp_path / "note.json")
    note.reserve()
    assert note.read() is None
    note.write(EngineStartError("vLLM did not start"))

    assert note.read() == (70, "vLLM did not start")


def test_exit_note_that_is_missing_is_none(tmp_path: Path) -> None:
    assert ExitNote(tmp_path / "note.json").read() is None


def test_exit_note_keeps_the_first_cause(tmp_path: Path) -> None:
    note = ExitNote(tmp_path / "note.json")
    note.write(ConfigurationError("the cause"))
    note.write(EngineDiedError("its consequence"))

    assert note.read() == (78, "the cause")


def test_exit_note_that_is_truncated_is_none(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    path.write_text('{"exit_code": 70, "cau')

    assert ExitNote(path).read() is None


@pytest.mark.parametrize("cause", ["vLLM did not start", "\0" * 100_000], ids=["short", "long"])
def test_exit_note_can_be_written_when_the_disk_is_full(tmp_path: Path, cause: str) -> None:
    note = ExitNote(tmp_path / "note.json")
    with small_file_system(tmp_path) as disk:
        note.reserve()
        disk.fill(os.getpid())
        note.write(MachineError(cause))
        said = note.read()

    assert said is not None
    assert said[0] == 74
    assert cause.startswith(said[1])


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (ConfigurationError, 78),
        (HardwareError, 78),
        (ArtifactError, 69),
        (AddressInUseError, 71),
        (EngineStartError, 70),
        (EngineDiedError, 75),
        (WorkerDiedError, 75),
        (MachineError, 74),
        (GptOssBentoError, 1),
    ],
)
def test_exit_codes_follow_the_error(error: type[GptOssBentoError], exit_code: int, tmp_path: Path) -> None:
    note = ExitNote(tmp_path / "note.json")
    note.write(error("cause"))

    assert note.read() == (exit_code, "cause")


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    monkeypatch.setattr(os, "kill", calls)
    return calls


def test_worker_notes_the_cause_and_asks_the_supervisor_to_end(note_path: Path, kill: Calls) -> None:
    exit_note.stop_service(EngineStartError("cause"))

    assert kill.made == [(os.getppid(), signal.SIGTERM)]
    assert json.loads(note_path.read_text()) == {"exit_code": 70, "cause": "cause"}


def test_exit_note_that_cannot_be_written_still_ends_the_service(
    note_path: Path, kill: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    note_path.mkdir()
    exit_note.stop_service(EngineStartError("cause"))

    assert kill.made == [(os.getppid(), signal.SIGTERM)]
    assert caplog.messages == ["cause", "the exit code will be 0 instead of 70"]


def test_worker_reads_what_another_one_noted(note_path: Path) -> None:
    assert exit_note.noted_cause() is None
    ExitNote(note_path).write(EngineStartError("cause"))
    assert exit_note.noted_cause() == "cause"


@pytest.mark.usefixtures("no_supervisor")
def test_process_without_a_supervisor_ends_itself(
    kill: Calls, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exit_note.stop_service(EngineStartError("cause"))

    assert kill.made == [(os.getpid(), signal.SIGTERM)]
    assert caplog.messages == ["cause"]
    assert list(tmp_path.iterdir()) == []
