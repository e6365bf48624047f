"""Why the service ends: one worker writes it down, and the supervisor exits with it.

The supervisor and its workers find the note through a variable that the supervisor sets and its workers inherit.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
from pathlib import Path

from gptoss_bento.config import process_environment
from gptoss_bento.errors import GptOssBentoError

logger = logging.getLogger(__name__)

_NOTE_BYTES = 65536
_LONGEST_CAUSE = 10_000  # characters, of which JSON makes six bytes at most


class ExitNote:
    """The file in which a worker notes for the supervisor why the service ends."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def metrics(self) -> Path:
        """The folder for metrics of the service whose note this is."""
        return self._path.with_suffix(".metrics")

    def reserve(self) -> None:
        """Takes the room that a note needs, so that it can be written when the disk is full."""
        self._path.touch(mode=0o600)
        self._path.write_bytes(b" " * _NOTE_BYTES)

    def write(self, error: GptOssBentoError) -> None:
        """The first cause stays; what follows from it is not written over it."""
        note = {"exit_code": error.exit_code, "cause": str(error)[:_LONGEST_CAUSE]}
        with os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not file.read().strip():
                file.seek(0)
                file.write(json.dumps(note).encode())

    def read(self) -> tuple[int, str] | None:
        """(exit code, cause), or None if there is none, or none that was finished."""
        try:
            note = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return None
        return note["exit_code"], note["cause"]


def stop_service(error: GptOssBentoError) -> None:
    """Ends the whole service with this cause. Returns immediately; the end comes by SIGTERM."""
    logger.error("%s", error)
    if (path := process_environment.exit_note_path()) is None:  # not under BentoML's supervisor
        os.kill(os.getpid(), signal.SIGTERM)
        return
    try:
        ExitNote(path).write(error)
    except OSError:
        logger.exception("the exit code will be 0 instead of %d", error.exit_code)
    os.kill(os.getppid(), signal.SIGTERM)


def noted_cause() -> str | None:
    """Why the service ends, if a worker has said so."""
    path = process_environment.exit_note_path()
    noted = ExitNote(path).read() if path else None
    return noted and noted[1]
