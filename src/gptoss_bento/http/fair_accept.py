"""A new connection goes to the API worker that serves the fewest.

All workers listen on one socket. An event loop's own server takes every connection that waits, in whichever worker
wakes up first, so that one worker may get most of a burst. Here each worker takes one at a time, and lets others go
first for some milliseconds while they have fewer; vLLM's own API servers do the same (`peer_loads` in its launcher).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from gptoss_bento.workers.worker_group import WorkerGroup

logger = logging.getLogger(__name__)

_DEFERRALS = 5
_DEFERRAL_S = 0.001
_PAUSE_S = 1.0  # after an error such as too many open files
_HANDSHAKES_S = 1.0  # for TLS handshakes that a stop meets


class FairAccept:
    """The accept loop of one worker.

    Args:
        group: this worker's.
        connect: makes an accepted socket a connection of the server's; over TLS this takes time, and may fail.
        connections: how many the server has.
    """

    def __init__(
        self,
        group: WorkerGroup,
        connect: Callable[[socket.socket], Awaitable[None]],
        connections: Callable[[], int],
    ) -> None:
        self._group = group
        self._connect = connect
        self._connections = connections
        self._accepting: set[asyncio.Task[None]] = set()
        self._connecting: set[asyncio.Task[None]] = set()

    def begin(self, listening: socket.socket, backlog: int) -> None:
        """Accepts from this socket from now on; the system queues `backlog` connections."""
        listening.listen(backlog)
        listening.setblocking(False)
        _spawn(self._accept(listening), self._accepting)

    async def end(self) -> None:
        """Accepts nothing more, and connects what is accepted.

        uvicorn closes the connections that it knows, and waits for all: one that came to be afterwards, or lost
        its socket halfway, would hold up the end.
        """
        await _cancelled(self._accepting)
        if self._connecting:
            await asyncio.wait(self._connecting, timeout=_HANDSHAKES_S)
        await _cancelled(self._connecting)

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            await _readable(listening)
            await self._let_others_go_first()
            try:
                connection, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                continue  # another worker took it, or the client is gone
            except OSError as error:
                logger.warning("a connection cannot be accepted: %s", error)
                await asyncio.sleep(_PAUSE_S)
                continue
            task = _spawn(self._serve_connection(connection), self._connecting)  # apart, for TLS takes its time
            task.add_done_callback(lambda _: self._report_connections())

    async def _let_others_go_first(self) -> None:
        for _ in range(_DEFERRALS):
            self._report_connections()
            if self._group.is_least_loaded:
                return
            await asyncio.sleep(_DEFERRAL_S)

    async def _serve_connection(self, connection: socket.socket) -> None:
        try:
            await self._connect(connection)
        except Exception as error:  # of a TLS handshake
            logger.debug("a connection came to nothing: %s", error)
            connection.close()
        except asyncio.CancelledError:
            connection.close()
            raise

    def _report_connections(self) -> None:
        self._group.report_connections(self._connections() + len(self._connecting))


def _spawn(work: Coroutine[Any, Any, None], kept: set[asyncio.Task[None]]) -> asyncio.Task[None]:
    task = asyncio.create_task(work)
    kept.add(task)
    task.add_done_callback(kept.discard)
    return task


async def _cancelled(tasks: set[asyncio.Task[None]]) -> None:
    running = list(tasks)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def _readable(listening: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    waiting = asyncio.Event()
    loop.add_reader(listening, waiting.set)
    try:
        await waiting.wait()
    finally:
        loop.remove_reader(listening)
