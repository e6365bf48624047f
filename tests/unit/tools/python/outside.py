"""What code of the model must not reach: a folder with a secret, servers, and the process that runs the tests."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECRET = "sea-otters-hold-hands"  # what an attempt would show, had it read the file
SIGNALS = (signal.SIGUSR1, signal.SIGIO, signal.SIGURG)
"""What attempts send, so that one that succeeds is counted and ends nothing."""


@dataclass
class Outside:
    """Targets, by the names that attempts use, and what has happened to them."""

    folder: Path
    tcp: socket.socket
    unix: socket.socket
    abstract: socket.socket
    pipe: int
    received: list[int] = field(default_factory=list)

    @property
    def names(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "secret": str(self.folder / "secret"),
            "port": self.tcp.getsockname()[1],
            "abstract": self.abstract.getsockname(),
            "pipe": self.pipe,
            "parent": os.getpid(),
        }

    def problems(self) -> list[str]:
        """What an attempt has changed or reached."""
        secret = self.folder / "secret"
        status = secret.stat()
        found = {
            "file written": secret.read_text() != SECRET or status.st_mode & 0o777 != 0o640 or status.st_mtime != 1000,
            "file made": sorted(path.name for path in self.folder.iterdir()) != ["canary.py", "secret", "unix"],
            "signal received": bool(self.received),
            "connection accepted": any(map(_was_reached, (self.tcp, self.unix, self.abstract))),
            "environment changed": os.environ["OUTSIDE_SECRET"] != SECRET,
        }
        return [problem for problem, is_true in found.items() if is_true]


def _was_reached(server: socket.socket) -> bool:
    with suppress(BlockingIOError):
        server.accept()
        return True
    return False


def _listening(family: int, address: Any) -> socket.socket:
    server = socket.socket(family)
    server.bind(address)
    server.listen()
    server.setblocking(False)
    return server


@contextmanager
def outside_of(folder: Path) -> Iterator[Outside]:
    """Makes the targets."""
    (folder / "canary.py").write_text("value = 1\n")
    secret = folder / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o640)
    os.utime(secret, (1000, 1000))
    os.environ["OUTSIDE_SECRET"] = SECRET
    servers = (
        _listening(socket.AF_INET, ("127.0.0.1", 0)),
        _listening(socket.AF_UNIX, str(folder / "unix")),
        _listening(socket.AF_UNIX, f"\0gptoss-bento-test-{os.getpid()}"),
    )
    reads, writes = os.pipe()
    os.write(writes, SECRET.encode())
    outside = Outside(folder, *servers, reads)
    before = {number: signal.signal(number, lambda got, _: outside.received.append(got)) for number in SIGNALS}
    try:
        yield outside
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for server in servers:
            server.close()
        os.close(reads)
        os.close(writes)
        del os.environ["OUTSIDE_SECRET"]
