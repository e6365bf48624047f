"""One API worker as a process: it ends with its supervisor, is started once, and finds its place in the group."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import uuid
from pathlib import Path

import click

from gptoss_bento.config import process_environment
from gptoss_bento.errors import WorkerDiedError
from gptoss_bento.workers.exit_note import ExitNote
from gptoss_bento.workers.worker_group import WorkerGroup

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def own_worker_group(worker_number: int) -> WorkerGroup:
    """Called in a worker: its place among all.

    Args:
        worker_number: from 1, as BentoML counts.
    """
    count, path = process_environment.worker_count(), process_environment.exit_note_path()
    return WorkerGroup(worker_number - 1, count, path.with_suffix("")) if path and count > 1 else WorkerGroup()


def keeps_metrics_in_process(group: WorkerGroup) -> bool:
    """Whether this is the only worker, and its metrics go into files only because BentoML always wants them there."""
    path = process_environment.exit_note_path()
    return path is not None and group.is_alone and process_environment.metrics_folder() == ExitNote(path).metrics


def enter_worker(group: WorkerGroup) -> None:
    """Called when a worker starts: it ends with its supervisor, and a second life after a crash is refused."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if (alive := _alive_file(group)) is not None:
        if alive.exists():
            raise WorkerDiedError(
                "The worker died without a message (killed, or out of memory); it is not started again."
            )
        alive.touch()
    group.enter(os.getpid())


def leave_worker(group: WorkerGroup) -> None:
    """Called when a worker ends as it should."""
    group.leave()
    if (alive := _alive_file(group)) is not None:
        alive.unlink(missing_ok=True)


def _alive_file(group: WorkerGroup) -> Path | None:
    """Exists while a worker lives; one that finds it at its start knows that the one before was killed."""
    path = process_environment.exit_note_path()
    return path.with_suffix(f".{group.index}.alive") if path else None


def service_id() -> str:
    """The same in all workers of this service, and in no other start of any; outside of a service a new one."""
    path = process_environment.exit_note_path()
    return path.stem if path else uuid.uuid4().hex


def listening_port() -> int | None:
    """The port of this service, from the socket that BentoML's supervisor hands to its workers; None elsewhere."""
    context = click.get_current_context(silent=True)
    descriptor = context.params.get("fd") if context else None
    if not isinstance(descriptor, int):
        return None
    try:
        with socket.socket(fileno=os.dup(descriptor)) as listening:
            address = listening.getsockname()
    except OSError:
        return None
    return int(address[1]) if isinstance(address, tuple) else None


def limits_file() -> Path | None:
    """Where the workers of this service count together what their clients use."""
    path = process_environment.exit_note_path()
    return path.with_suffix(".limits") if path else None
