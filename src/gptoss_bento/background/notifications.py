"""Notifies the workers beside this one of what changed in the store, so that they read it immediately.

Only a hint: if a message is lost, the others see the change at their next poll of the store.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

QUEUE = "queue"
"""Published instead of an id: work waits that the publishing worker has no slot for."""

_MAX_MESSAGE_BYTES = 8192


class Notifier:
    """Publishes the ids of changed work to the other workers, and receives theirs.

    Args:
        own: the socket at which this worker listens; None: there are no others.
        others: the sockets of the others.
        on_notify: is called with the ids that another worker has published.
    """

    def __init__(self, own: Path | None, others: Sequence[Path], on_notify: Callable[[list[str]], None]) -> None:
        self._own = own
        self._others = [str(path) for path in others]
        self._on_notify = on_notify
        self._socket: socket.socket | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Receives and can publish within the block, which runs in an event loop."""
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

    def publish(self, ids: Iterable[str]) -> None:
        """Notifies the others. A worker that does not listen, or whose socket is full, is left out."""
        if self._socket is None or not (message := "\n".join(ids).encode()[:_MAX_MESSAGE_BYTES]):
            return
        for other in self._others:
            with suppress(OSError):
                self._socket.sendto(message, other)

    def _read(self, own: socket.socket) -> None:
        with suppress(OSError):
            self._on_notify(own.recv(_MAX_MESSAGE_BYTES).decode(errors="replace").split("\n"))
