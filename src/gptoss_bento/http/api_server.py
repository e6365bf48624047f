"""The HTTP server of each worker, and the one place where BentoML hands its application to uvicorn.

BentoML's worker writes `uvicorn.Server(config).run(...)` and has no setting for the class, nor for most of uvicorn's
own settings. So its next server becomes an `ApiServer`. Whatever this service needs of the server or around the whole
application is done here: limits of connections, layers outside of BentoML's, signals, accepting in turn.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from gptoss_bento.http import patches
from gptoss_bento.http.fair_accept import FairAccept
from gptoss_bento.workers.worker_group import WorkerGroup

OnStop = Callable[[int, Callable[[], None]], None]
"""Is called in the handler of SIGTERM and SIGINT, with the signal and with what lets uvicorn end when it is time."""


@dataclass(frozen=True)
class Parts:
    """What a worker gives its server.

    Attributes:
        group: the workers that accept from the same socket.
        connection: the class of connections, as `http=` of `uvicorn.Config`.
        wrap: makes the application that is served of the one that BentoML has made.
        on_stop: what a signal does; uvicorn would end as soon as open requests have.
        configure: changes further settings of uvicorn.
    """

    group: WorkerGroup
    connection: type[asyncio.Protocol]
    wrap: Callable[[Starlette], ASGIApp]
    on_stop: OnStop
    configure: Callable[[uvicorn.Config], None] = lambda _: None


KEEP_ALIVE_S = 75
"""How long a connection without a request stays open, unless `bentoml serve --timeout-keep-alive` says. As nginx.

After BentoML's own 5 s a request of Node.js, whose fetch keeps connections for 4 to 5 s, met "other side closed".
"""
_KEEP_ALIVE_OPTION = "--timeout-keep-alive"  # which BentoML hands to its worker only if somebody gave it


class ApiServer(uvicorn.Server):
    """uvicorn's server with the parts of a worker."""

    def __init__(self, config: uvicorn.Config, parts: Parts) -> None:
        config.http = parts.connection
        parts.configure(config)
        if not any(argument.startswith(_KEEP_ALIVE_OPTION) for argument in sys.argv):
            config.timeout_keep_alive = KEEP_ALIVE_S
        application: Any = config.app
        config.app = parts.wrap(application)
        super().__init__(config)
        self._group = parts.group
        self._on_stop = parts.on_stop
        self._accepting = FairAccept(parts.group, self._connect, lambda: len(self.server_state.connections))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's. One of several workers accepts in turn with the others."""
        if self._group.is_alone:
            await super().startup(sockets)
            return
        await super().startup([])
        for listening in sockets or ():
            self._accepting.begin(listening, self.config.backlog)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops accepting before uvicorn closes the sockets."""
        await self._accepting.end()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """In place of uvicorn's, which is called later."""
        self._on_stop(sig, partial(super().handle_exit, sig, frame))

    async def _connect(self, accepted: socket.socket) -> None:
        make = self._protocol()
        await asyncio.get_running_loop().connect_accepted_socket(make, accepted, ssl=self.config.ssl)

    def _protocol(self) -> Callable[[], asyncio.Protocol]:
        make: Any = self.config.http_protocol_class
        loop = asyncio.get_running_loop()
        return partial(
            make, config=self.config, server_state=self.server_state, app_state=self.lifespan.state, _loop=loop
        )


def install(parts: Parts) -> None:
    """Makes BentoML's worker, which is about to make its server, make an `ApiServer`.

    Once only: other code that makes or derives from a uvicorn.Server later finds uvicorn's own class.
    """
    own = patches.SERVER.original()

    def make(config: uvicorn.Config) -> ApiServer:
        patches.SERVER.replace(own)
        return ApiServer(config, parts)

    patches.SERVER.replace(make)
