"""Which process a worker is, and whether that process still runs."""

from __future__ import annotations

import socket
import uuid
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class WorkerIdentity:
    """A worker process: enough for another on the same machine to see whether it is gone."""

    worker_id: str
    machine: str
    pid: int
    started: float  # seconds since 1970


def own_identity() -> WorkerIdentity:
    """This process, with a new worker id."""
    process = psutil.Process()
    return WorkerIdentity(uuid.uuid4().hex[:16], _machine(), process.pid, process.create_time())


def is_gone(worker: WorkerIdentity) -> bool:
    """Whether that process has certainly ended: it ran where this process can see all others, and does not run now."""
    if worker.machine != _machine():
        return False
    try:
        return abs(psutil.Process(worker.pid).create_time() - worker.started) > 1
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def _machine() -> str:
    """The same for all processes that see one another: the host's name and, on Linux, the PID namespace."""
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {namespace.readlink() if namespace.is_symlink() else ''}".strip()
