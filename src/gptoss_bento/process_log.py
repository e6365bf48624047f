"""Keeps the last lines that this process and its children print, to name the cause when the engine fails.

vLLM reports a failed engine process with "see root cause above": the cause itself is only in the child's output.
"""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from typing import BinaryIO

_KEPT_LINES = 200
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
# "RuntimeError: …", alone or behind vLLM's "(EngineCore pid=1) ERROR 11-22 14:00:00 [core.py:1] "
_EXCEPTION = re.compile(r"(?:^|\s)((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt)\b: \S.*)$")
# These only say that something else went wrong.
_CONSEQUENCES = ("See root cause above", "Engine core initialization failed", "EngineDeadError")


class ProcessLog:
    """Passes everything written to stdout and stderr on, and remembers the end of it."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)

    def tap(self) -> None:
        """From now on, every write of this process and of the children it starts is seen. Call once."""
        for descriptor in (1, 2):
            original = os.fdopen(os.dup(descriptor), "wb", buffering=0)
            reading, writing = os.pipe()
            os.dup2(writing, descriptor)
            os.close(writing)
            source = os.fdopen(reading, "rb")
            threading.Thread(target=self._pass_on, args=(source, original), daemon=True).start()

    def _pass_on(self, source: BinaryIO, original: BinaryIO) -> None:
        for line in source:
            original.write(line)
            self.add(line.decode(errors="replace"))

    def add(self, line: str) -> None:
        """Remembers one line."""
        self._lines.append(_ANSI.sub("", line.rstrip()))

    def cause(self) -> str | None:
        """The last exception that was printed and that is not the consequence of another one."""
        for line in reversed(self._lines):
            match = _EXCEPTION.search(line)
            if match and not any(word in line for word in _CONSEQUENCES):
                return match[1]
        return None
