"""What happens on SIGTERM, and on SIGINT alike: in each worker, and in the supervisor.

In a worker the HTTP server's `handle_exit` (http/api_server.py) calls `Worker.stop` (server/worker.py), whose graceful
shutdown lets running work end and then uvicorn (workers/graceful_shutdown.py); here is the countdown to a forced end.
In the supervisor circus's handler ends the workers; it is replaced by one that loses no signal.
"""

from __future__ import annotations

import json
import os
import threading
from typing import Any

from gptoss_bento.workers import patches
from gptoss_bento.workers.child_processes import kill_processes
from gptoss_bento.workers.worker_group import WorkerGroup
from gptoss_bento.workers.worker_process import leave_worker

SHUTDOWN_LIMIT_S = 8.0
"""From SIGTERM until a worker that has not ended by itself is ended; clients are promised 10 s."""

_AFTER_DRAIN_S = 3.0
"""The same from the end of DRAIN_TIMEOUT, where that is longer."""

_POLL_INTERVAL_S = 0.05


def limit_shutdown(drain_s: float, group: WorkerGroup) -> None:
    """Starts the countdown to a forced end: uvicorn, which runs the worker, waits for open connections without limit.

    Args:
        drain_s: seconds that running work has; 0: nothing runs.
    """
    _count_down(max(SHUTDOWN_LIMIT_S, drain_s + _AFTER_DRAIN_S) if drain_s else SHUTDOWN_LIMIT_S, group)


def _count_down(seconds: float, group: WorkerGroup) -> None:
    timer = threading.Timer(seconds, force_exit, (group,))
    timer.daemon = True
    timer.start()


def force_exit(group: WorkerGroup) -> None:
    """Ends this worker and everything it started, now."""
    kill_processes()
    leave_worker(group)
    os._exit(0)


# The supervisor


def patch_circus_sigterm() -> None:
    """From now on BentoML's supervisor acts on a SIGTERM or SIGINT that comes while it restarts a dead worker.

    circus refuses one command while another runs, also the one that its own signal handler gives, without a word: a
    SIGTERM in the second after a worker's end was lost.
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
