"""How the service ends: one cause, one exit code, no process left and no restart loop.

`bentoml serve` is two kinds of process. The supervisor (BentoML's circus arbiter) owns the port and starts workers; it
would start a failing worker again for ever and always exit with 0. So a worker that cannot go on leaves a note for the
supervisor and asks it to end (workers/exit_note.py); the supervisor's exit hook, installed when it imports service.py,
reads the note. What a signal does is in workers/sigterm.py.
"""

from __future__ import annotations

import atexit
import ctypes
import errno
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import click

from gptoss_bento.config import process_environment
from gptoss_bento.errors import AddressInUseError, GptOssBentoError
from gptoss_bento.workers.child_processes import kill_processes
from gptoss_bento.workers.exit_note import ExitNote
from gptoss_bento.workers.sigterm import patch_circus_sigterm
from gptoss_bento.workers.worker_group import make_shared_folder

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_SERVING = ("serve", "serve-http")


def supervise(keep_metrics_in: Callable[[Path], None] = lambda _: None) -> None:
    """Called when service.py is imported. In the supervisor it installs the exit hook; in a worker it does nothing.

    Args:
        keep_metrics_in: is called with the folder of this service's metrics: where the operator wants them,
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
