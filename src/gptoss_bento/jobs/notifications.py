"""Tells the workers beside this one that something happened to jobs, so that they look at once rather than soon.

Only a hint: a message that is lost is made up for by the next look into the store.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

QUEUE = "queue"
"""Stands for a job id: jobs wait that the teller does not take."""

_LONGEST = 8192  # bytes of a message


class Bell:
    """One worker's bell.

    Args:
        own: the socket at which this worker listens; None: there are no others.
        others: the sockets of the others.
        heard: is told the ids of jobs that others have changed.
    """

    def __init__(self, own: Path | None, others: Sequence[Path], heard: Callable[[list[str]], None]) -> None:
        self._own = own
        self._others = [str(path) for path in others]
        self._heard = heard
        self._socket: socket.socket | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hears the others within the block, which runs in an event loop, and can tell them something."""
        if self._own is None:
            yield
            return
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as own:
            own.bind(str(self._own))
            loop.add_reader(own, self._read, own)
            self._socket = own
            try:
                yield
            finally:
                self._socket = None
                loop.remove_reader(own)

    def ring(self, job_ids: Iterable[str]) -> None:
        """Tells the others. Whoever does not listen, or has too much to read, is left out."""
        if self._socket is None or not (message := "\n".join(job_ids).encode()[:_LONGEST]):
            return
        for other in self._others:
            with suppress(OSError):
                self._socket.sendto(message, other)

    def _read(self, own: socket.socket) -> None:
        with suppress(OSError):
            self._heard(own.recv(_LONGEST).decode(errors="replace").split("\n"))
