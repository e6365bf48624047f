"""How the service ends: one cause, one exit code, no process left and no restart loop.

`bentoml serve` is two kinds of process. The supervisor (BentoML's circus arbiter) owns the port and starts workers; it
would start a failing worker again for ever and always exit with 0. So a worker that cannot go on leaves a note for the
supervisor and asks it to end; the supervisor's exit hook, installed when it imports service.py, reads the note. Both
find the note through a variable that the supervisor sets and its workers inherit.
"""

from __future__ import annotations

import atexit
import ctypes
import errno
import fcntl
import json
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import click

from gptoss_bento.config import process_environment
from gptoss_bento.errors import AddressInUseError, GptOssBentoError, WorkerDiedError
from gptoss_bento.workers import patches
from gptoss_bento.workers.child_processes import kill_processes
from gptoss_bento.workers.worker_group import WorkerGroup, make_shared_folder

logger = logging.getLogger(__name__)

SHUTDOWN_LIMIT_S = 8.0
"""From SIGTERM until a worker that has not ended by itself is ended; clients are promised 10 s."""

_AFTER_DRAIN_S = 3.0
"""The same from the end of DRAIN_TIMEOUT, where that is longer."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36
_SERVING = ("serve", "serve-http")
_POLL_INTERVAL_S = 0.05
_NOTE_BYTES = 65536
_LONGEST_CAUSE = 10_000  # characters, of which JSON makes six bytes at most


class ExitNote:
    """The file in which a worker tells the supervisor why the service ends."""

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


def supervise(keep_metrics_in: Callable[[Path], None] = lambda _: None) -> None:
    """Called when service.py is imported. In the supervisor it installs the exit hook; in a worker it does nothing.

    Args:
        keep_metrics_in: is told where the processes of this service keep their metrics: where the operator wants them,
            or in a folder that goes with the service.

    Raises:
        ConfigurationError: the operator's folder cannot be used.
    """
    if process_environment.exit_note_path() is not None:
        return
    note = ExitNote(process_environment.set_exit_note_path())
    keep_metrics_in(process_environment.metrics_folder() or note.metrics)
    serving = is_serving()
    if serving:
        note.reserve()
        # What a killed worker leaves behind becomes a child of this process, which ends it.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
        patch_circus_sigterm()
    atexit.register(_exit_as_noted, note, serving)
    sys.excepthook = _explain(sys.excepthook)


def patch_circus_sigterm() -> None:
    """From now on BentoML's supervisor acts on a SIGTERM or SIGINT that comes while it restarts a dead worker.

    circus refuses one command while another runs, also the one that its own signal handler gives, without a word: a
    SIGTERM in the second after a worker's death was lost.
    """
    patches.QUIT.replace(_quit)


def _quit(handler: Any) -> None:
    handler.controller.loop.add_callback_from_signal(_quit_when_free, handler.controller)


def _quit_when_free(controller: Any) -> None:
    arbiter = controller.arbiter
    if arbiter._exclusive_running_command and not arbiter._stopping:
        controller.loop.call_later(_POLL_INTERVAL_S, _quit_when_free, controller)
    else:
        controller.dispatch((None, json.dumps({"command": "quit"})))


def _exit_as_noted(note: ExitNote, serving: bool) -> None:
    if serving:
        kill_processes()
    said = note.read()
    remove_remains()
    if said is None:
        return
    exit_code, cause = said
    _say(cause, exit_code)
    os._exit(exit_code)


def remove_remains() -> None:
    """Removes what the service had in the folder for temporary files."""
    if (note := process_environment.exit_note_path()) is None:
        return
    for path in note.parent.glob(f"{note.stem}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def is_serving() -> bool:
    """Whether this is the supervisor of `bentoml serve`, rather than a build, a test or a worker."""
    context = click.get_current_context(silent=True)
    return context is not None and context.info_name in _SERVING


def may_start_several() -> bool:
    """Whether workers may share an engine here. Those that BentoML starts again one by one after a change may not."""
    context = click.get_current_context(silent=True)
    return is_serving() and context is not None and not context.params.get("reload")


def create_worker_group(count: int) -> None:
    """Called in the supervisor before it starts several workers: makes what they share."""
    path = process_environment.exit_note_path()
    if path is None or count == 1:
        return
    process_environment.set_worker_count(count)
    make_shared_folder(path.with_suffix(""), count)


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


def _say(cause: str, exit_code: int) -> None:
    with suppress(OSError):  # of a log on a full disk: the exit code must come all the same
        print(f"gptoss-bento: stopped (exit code {exit_code}): {cause}", file=sys.stderr, flush=True)


_ExceptHook = Callable[[type[BaseException], BaseException, TracebackType | None], object]


def _explain(default: _ExceptHook) -> _ExceptHook:
    """Turns the errors an operator can cause before any worker runs into one line each."""

    def explain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        known = error if isinstance(error, GptOssBentoError) else _as_known(error)
        if known is None:
            default(kind, error, trace)
            return
        _say(str(known), known.exit_code)
        remove_remains()
        os._exit(known.exit_code)

    return explain


def _as_known(error: BaseException) -> GptOssBentoError | None:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return AddressInUseError("The port is in use by another process. Choose another one with --port.")
    return None


def enter_worker(group: WorkerGroup) -> None:
    """Called when a worker starts: it ends with its supervisor, and a second life after a crash is refused."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if (alive := _alive_file(group)) is not None:
        if alive.exists():
            raise WorkerDiedError("The worker died without a word (killed, or out of memory); it is not started again.")
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


def limits_file() -> Path | None:
    """Where the workers of this service count together what their clients use."""
    path = process_environment.exit_note_path()
    return path.with_suffix(".limits") if path else None


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


OnStop = Callable[[int, Callable[[], None]], float]
"""Gets the signal and what lets uvicorn end, which it calls when it is time; returns how many seconds that may take."""


def handle_stop_signals(on_stop: OnStop, group: WorkerGroup) -> None:
    """From now on SIGTERM and SIGINT go to `on_stop` and start the countdown to a forced end.

    uvicorn, which runs the worker, waits for open connections without limit; its handlers stay in place behind ours.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        previous = signal.getsignal(number)

        def handle(number: int, frame: FrameType | None, previous: object = previous) -> None:
            def end() -> None:
                if callable(previous):
                    previous(number, frame)

            drain_s = on_stop(number, end)
            _count_down(max(SHUTDOWN_LIMIT_S, drain_s + _AFTER_DRAIN_S) if drain_s else SHUTDOWN_LIMIT_S, group)

        signal.signal(number, handle)


def _count_down(seconds: float, group: WorkerGroup) -> None:
    timer = threading.Timer(seconds, force_exit, (group,))
    timer.daemon = True
    timer.start()


def force_exit(group: WorkerGroup) -> None:
    """Ends this worker and everything it started, now."""
    kill_processes()
    leave_worker(group)
    os._exit(0)
