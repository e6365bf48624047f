"""Keeps the last lines that this process and its children print, to name the cause when the engine fails.

vLLM reports a failed engine process with "see root cause above": the cause itself is only in the child's output.
"""

from __future__ import annotations

import itertools
import operator
import os
import re
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

_KEPT_LINES = 200  # of each descriptor
_RECENT_S = 300.0  # earlier output is not the cause
_DESCRIPTORS = (1, 2)
_CHUNK_BYTES = 65536
_FINAL_OUTPUT_S = 1.0
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
# "RuntimeError: …", alone or behind vLLM's "(EngineCore pid=1) ERROR 11-22 14:00:00 [core.py:1] "
_EXCEPTION = re.compile(r"(?:^|\s)((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt)\b: \S.*)$")
# These only say that something else went wrong.
_CONSEQUENCES = ("See root cause above", "Engine core initialization failed", "EngineDeadError")


@dataclass(frozen=True)
class _Tap:
    descriptor: int
    original: int
    thread: threading.Thread


class ProcessLog:
    """Passes everything written to stdout and stderr on, and remembers the end of it."""

    def __init__(self) -> None:
        # For each descriptor its own: what floods one of them does not push the cause out of the other.
        self._lines = {descriptor: deque[tuple[float, str]](maxlen=_KEPT_LINES) for descriptor in _DESCRIPTORS}
        self._released = 0.0
        self._taps: list[_Tap] = []

    def tap(self) -> None:
        """From now on, every write of this process and of the children it starts is seen."""
        self._taps = [self._tap(descriptor) for descriptor in _DESCRIPTORS]

    def release(self) -> None:
        """From now on, only the children started meanwhile are seen; this process writes directly again.

        Output until now is not the cause of a later failure. A thread that passes on every line of the
        access log would take turns with the requests.
        """
        self._let_go()
        self._released = time.monotonic()

    def _let_go(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        for tap in self._taps:
            os.dup2(tap.original, tap.descriptor)

    def untap(self) -> None:
        """Passes the rest on and lets go. Called before the end, so that the final lines are not lost."""
        self._let_go()
        deadline = time.monotonic() + _FINAL_OUTPUT_S
        for tap in self._taps:  # ends as soon as no child holds the other end of the pipe
            tap.thread.join(max(0, deadline - time.monotonic()))
        self._taps = []

    def _tap(self, descriptor: int) -> _Tap:
        original = os.dup(descriptor)
        reading, writing = os.pipe()
        os.dup2(writing, descriptor)
        os.close(writing)
        thread = threading.Thread(target=self._pass_on, args=(reading, original, descriptor), daemon=True)
        thread.start()
        return _Tap(descriptor, original, thread)

    def _pass_on(self, reading: int, original: int, descriptor: int) -> None:
        """Reads on even when the output can no longer be written: a full pipe would stop every writer."""
        unfinished = b""
        while chunk := os.read(reading, _CHUNK_BYTES):
            *lines, unfinished = (unfinished + chunk).split(b"\n")
            for line in lines:
                self.add(line.decode(errors="replace"), descriptor)
            with suppress(OSError):
                os.write(original, chunk)
        os.close(reading)

    def add(self, line: str, descriptor: int = 2) -> None:
        """Remembers one line."""
        self._lines[descriptor].append((time.monotonic(), _ANSI.sub("", line.rstrip())))

    def last(self, count: int = _KEPT_LINES) -> list[str]:
        """The last lines, oldest first."""
        return [line for _, line in self._in_order()][-count:]

    def recent(self) -> list[str]:
        """The lines of the last minutes, and since `release` if that was called: they may have the cause."""
        since = max(self._released, time.monotonic() - _RECENT_S)
        return [line for at, line in self._in_order() if at >= since]

    def _in_order(self) -> list[tuple[float, str]]:
        kept = [list(lines) for lines in self._lines.values()]  # a copy: the threads go on
        return sorted(itertools.chain.from_iterable(kept), key=operator.itemgetter(0))

    def cause(self) -> str | None:
        """The last exception that was printed and that is not the consequence of another one."""
        for line in reversed(self.recent()):
            match = _EXCEPTION.search(line)
            if match and not any(word in line for word in _CONSEQUENCES):
                return match[1]
        return None
