"""A new connection goes to the API worker that serves the fewest.

All workers listen on one socket. An event loop's own server takes every connection that waits, in whichever worker
wakes up first, so that one worker may get most of a burst. Here each worker takes one at a time, and lets others go
first for some milliseconds while they have fewer; vLLM's own API servers do the same (`peer_loads` in its launcher).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Coroutine
from copy import copy
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from gptoss_bento.http import patches
from gptoss_bento.workers.worker_group import WorkerGroup

logger = logging.getLogger(__name__)

_DEFERRALS = 5
_DEFERRAL_S = 0.001
_PAUSE_S = 1.0  # after an error such as too many open files
_HANDSHAKES_S = 1.0  # for TLS handshakes that a stop meets


def install(group: WorkerGroup, for_others: ASGIApp) -> None:
    """Makes BentoML's worker, which is about to make its uvicorn.Server, accept fairly. BentoML has no hook for it.

    Once only: vLLM takes uvicorn's own class later.

    Args:
        group: this worker's.
        for_others: what the other workers reach through this one's socket.
    """
    own = patches.SERVER.original()

    def make(config: uvicorn.Config) -> FairServer:
        patches.SERVER.replace(own)
        return FairServer(config, group, for_others)

    patches.SERVER.replace(make)


class FairServer(uvicorn.Server):
    """uvicorn's server with an accept loop of its own."""

    def __init__(self, config: uvicorn.Config, group: WorkerGroup, for_others: ASGIApp) -> None:
        super().__init__(config)
        self._group = group
        self._for_others = for_others
        self._accepting: set[asyncio.Task[None]] = set()
        self._connecting: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, which listens on nothing here."""
        await super().startup([])
        if path := self._group.own_socket("http"):  # for the other workers
            loop = asyncio.get_running_loop()
            make = partial(self._protocol, _with_application(self.config, self._for_others), loop)
            server = await loop.create_unix_server(make, str(path))
            self.servers.append(server)  # uvicorn closes it
        for listening in sockets or ():
            listening.listen(self.config.backlog)
            listening.setblocking(False)
            _spawn(self._accept(listening), self._accepting)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops to accept before uvicorn closes the sockets.

        uvicorn tells the connections that it knows to end, and waits for all: one that came to be afterwards, or lost
        its socket halfway, would hold up the end. So what is accepted is connected first.
        """
        await _cancelled(self._accepting)
        if self._connecting:
            await asyncio.wait(self._connecting, timeout=_HANDSHAKES_S)
        await _cancelled(self._connecting)
        await super().shutdown(sockets)

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
            task.add_done_callback(lambda _: self._tell())

    async def _let_others_go_first(self) -> None:
        for _ in range(_DEFERRALS):
            self._tell()
            if self._group.is_least_loaded:
                return
            await asyncio.sleep(_DEFERRAL_S)

    async def _serve_connection(self, connection: socket.socket) -> None:
        try:
            loop = asyncio.get_running_loop()
            make = partial(self._protocol, self.config, loop)
            await loop.connect_accepted_socket(make, connection, ssl=self.config.ssl)
        except Exception as error:  # of a TLS handshake
            logger.debug("a connection came to nothing: %s", error)
            connection.close()
        except asyncio.CancelledError:
            connection.close()
            raise

    def _protocol(self, config: uvicorn.Config, loop: asyncio.AbstractEventLoop) -> asyncio.Protocol:
        make: Any = config.http_protocol_class
        protocol: asyncio.Protocol = make(
            config=config, server_state=self.server_state, app_state=self.lifespan.state, _loop=loop
        )
        return protocol

    def _tell(self) -> None:
        self._group.tell_connections(len(self.server_state.connections) + len(self._connecting))


def _with_application(config: uvicorn.Config, app: ASGIApp) -> uvicorn.Config:
    """A configuration that is loaded, for another application."""
    other = copy(config)
    other.loaded_app = app
    return other


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
