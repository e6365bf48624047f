from __future__ import annotations

import ctypes
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from gptoss_bento.config import process_environment
from tests.fakes import Calls


@pytest.fixture
def note_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This process is a worker of a supervisor."""
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    return process_environment.set_exit_note_path()


@pytest.fixture
def no_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})


@pytest.fixture
def prctl(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """A fake of the system call, which would otherwise apply to pytest."""
    calls = Calls(0)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(prctl=calls))
    return calls
