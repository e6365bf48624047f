"""What a child uses, by the kernel's account."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_MEMORY: Final = re.compile(r"^Vm(?:RSS|Swap|PTE):\s+(\d+) kB$", re.MULTILINE)
_THREADS: Final = re.compile(r"^Threads:\s+(\d+)$", re.MULTILINE)
_STATE: Final = 0  # fields after the name in parentheses: proc_pid_stat(5)
_USER_TIME: Final = 11
_SYSTEM_TIME: Final = 12


@dataclass(frozen=True)
class Usage:
    """What a process uses.

    Attributes:
        memory_bytes: with page tables, which no rlimit bounds.
        cpu_s: CPU time of all threads since the start.
        threads: how many.
        has_main_thread: False: it has ended while others go on, and the kernel reports no memory any more.
    """

    memory_bytes: int
    cpu_s: float
    threads: int
    has_main_thread: bool = True


def usage(pid: int) -> Usage:
    """Of a process; nothing, if it has ended or the machine hides it."""
    with suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
        times = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        threads = sum(map(int, _THREADS.findall(status)))
        return Usage(
            memory_bytes=sum(1024 * int(size) for size in _MEMORY.findall(status)),
            cpu_s=(int(times[_USER_TIME]) + int(times[_SYSTEM_TIME])) / _TICKS,
            threads=threads,
            has_main_thread=times[_STATE] != "Z" or threads < 2,
        )
    return Usage(0, 0.0, 0)
