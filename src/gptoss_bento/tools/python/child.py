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
from typing import IO, Any, Final

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
    sys.stdin, sys.stdout, sys.stderr = _stream(0, "r"), _stream(1, "w"), _stream(2, "w")
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


def _stream(descriptor: int, mode: str) -> IO[Any]:
    return open(descriptor, mode, buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _serve(requests: int, replies: int, request_bytes: int) -> None:
    notebook, frames = Notebook(), Frames(request_bytes)
    while data := os.read(requests, READ_BYTES):
        for message in frames.feed(data):
            failed = _run(notebook, message)
            os.write(replies, frame({"run": message["run"], "failed": failed}))


def _run(notebook: Notebook, message: dict[str, Any]) -> bool:
    """Runs one cell, which SIGINT interrupts."""
    streams = sys.stdout, sys.stderr
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        failed = notebook.run(message["code"])
    except KeyboardInterrupt:  # while the traceback of the first was printed
        failed = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr, *streams):
        _flush(stream)
    sys.stdout, sys.stderr = streams
    return failed


def _flush(stream: Any) -> None:
    with suppress(Exception):  # a cell may have put anything in its place
        stream.flush()
