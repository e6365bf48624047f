"""The program of a confined child: confines itself, then runs cells as they arrive.

Its descriptors: 0 brings requests, 1 takes what cells print, 2 takes replies. Once it has started, a cell has an empty
input, and 1 and 2 both take its output. What it needs is in its one argument, as JSON; its environment is empty but for
a few variables of libraries.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from typing import Final, Literal, TextIO

from gptoss_bento.tools.python import confinement
from gptoss_bento.tools.python.framing import Frames, frame
from gptoss_bento.tools.python.notebook import Notebook

READ_BYTES: Final = 65536


def main() -> None:
    """Runs until the service closes the pipe of requests."""
    settings = json.loads(sys.argv[1])
    confinement.die_with_parent(settings["parent"])
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    requests, replies = _private_pipes()
    sys.path[:] = [*(path for path in sys.path if path != settings["root"]), *settings["packages"]]
    sys.argv[:] = [""]
    sys.stdin = _stream(0, "r")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    confinement.confine(settings["readable"], settings["memory_bytes"], settings["cpu_s"])
    os.write(replies, frame({"run": 0, "failed": False}))
    _serve(requests, replies, settings["request_bytes"])


def _private_pipes() -> tuple[int, int]:
    """Moves the pipes of the service away from the descriptors that Python's own streams use."""
    requests, replies = os.dup(0), os.dup(2)
    no_input, end = os.pipe()
    os.close(end)
    os.dup2(no_input, 0)
    os.dup2(1, 2)
    os.close(no_input)
    return requests, replies


def _stream(descriptor: int, mode: Literal["r", "w"]) -> TextIO:
    return open(descriptor, mode, buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _serve(requests: int, replies: int, request_bytes: int) -> None:
    cells, frames = _Cells(), Frames(request_bytes)
    while data := os.read(requests, READ_BYTES):
        for message in frames.feed(data):
            failed = cells.run(message["code"])
            os.write(replies, frame({"run": message["run"], "failed": failed}))


class _Cells:
    """A notebook with its output, which a cell can close or replace, for itself alone."""

    def __init__(self) -> None:
        self._notebook = Notebook()
        self._streams = {number: _stream(number, "w") for number in (1, 2)}

    def run(self, code: str) -> bool:
        """Runs one cell, which SIGINT interrupts. Returns whether it failed."""
        self._open_streams()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            failed = self._notebook.run(code)
        except KeyboardInterrupt:  # while the traceback of the first was printed
            failed = True
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for stream in (sys.stdout, sys.stderr, *self._streams.values()):
            with suppress(Exception):  # it may be anything
                stream.flush()
        return failed

    def _open_streams(self) -> None:
        for number, stream in self._streams.items():
            if stream.closed:
                self._streams[number] = _stream(number, "w")
        sys.stdout, sys.stderr = self._streams[1], self._streams[2]
