"""Where a worker process lives, and whether it still does."""

from __future__ import annotations

import socket
import uuid
from pathlib import Path

import psutil

from gptoss_bento.state.store import Place


def own_place() -> Place:
    """This process, under a new name."""
    process = psutil.Process()
    return Place(uuid.uuid4().hex[:16], _machine(), process.pid, process.create_time())


def is_gone(place: Place) -> bool:
    """Whether that process has certainly ended: it ran here, where processes can be seen, and is not seen any more."""
    if place.machine != _machine():
        return False
    try:
        return abs(psutil.Process(place.pid).create_time() - place.started) > 1
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def _machine() -> str:
    """Processes that see each other have the same name: that of the host and, on Linux, of their set of processes."""
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {namespace.readlink() if namespace.is_symlink() else ''}".strip()
