"""The processes that this one started, and those that they started."""

from __future__ import annotations

from contextlib import suppress

import psutil


def kill_processes() -> None:
    """Ends what is left of the engine's processes, which ignore SIGTERM while they load."""
    children = psutil.Process().children(recursive=True)
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(children, timeout=2)
