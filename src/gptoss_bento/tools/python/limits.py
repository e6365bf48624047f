"""Bounds of Python that the model writes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one container, and all together, may use.

    Attributes:
        memory_bytes: address space of a child. Python and numpy take 200 MB of it, most of it never used.
        timeout_s: wall time of a call. It also bounds how long a call waits for a child to be free.
        cpu_s: CPU time of a call, of all its threads.
        grace_s: how long an interrupted call has to end before its process is killed; loops of C see no interrupt.
        output_bytes: of a call's output, what the model reads: its beginning and its end.
        flood_bytes: of output after which a call is interrupted.
        code_bytes: the longest code.
        threads: of a child.
        idle_s: without a call, after which a container ends.
        containers: children of this process.
    """

    memory_bytes: int = 512 * 2**20
    timeout_s: float = 60.0
    cpu_s: float = 120.0
    grace_s: float = 1.0
    output_bytes: int = 32 * 2**10
    flood_bytes: int = 4 * 2**20
    code_bytes: int = 2**20
    threads: int = 64
    idle_s: float = 1200.0  # as OpenAI's containers, which end after 20 minutes
    containers: int = 16
