"""WebSocket connections below their messages: uvicorn's protocol, with the limits that it lacks.

uvicorn's flow control holds messages back while a client reads none. Its pings find a client that is gone, but closing
waits without end for what was written to be read; meanwhile a generation would wait for it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

logger = logging.getLogger(__name__)

if TYPE_CHECKING:

    class _Base(asyncio.Protocol):
        transport: asyncio.Transport

else:
    _Base = object


class _Impatient(_Base):
    """Cuts the connection of a client that does not read."""

    patience_s = 120.0
    _reading: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._reading is None:
            self._reading = asyncio.get_running_loop().call_later(self.patience_s, self._give_up)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_reading()
        super().connection_lost(exc)

    def _give_up(self) -> None:
        logger.info("a client left its events unread for %g s; its connection is cut", self.patience_s)
        self.transport.abort()

    def _end_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None


def limit_websockets(config: uvicorn.Config, max_message_bytes: int, patience_s: float) -> None:
    """Sets what uvicorn makes of WebSocket connections. Messages are not compressed, which would cost each token.

    Args:
        config: of a server that has not started.
        max_message_bytes: a larger message of a client closes its connection with 1009.
        patience_s: seconds that a client may leave what it is sent unread.
    """
    config.ws_max_size = max_message_bytes
    config.ws_per_message_deflate = False
    base: Any = AutoWebSocketsProtocol
    if base is not None:  # a library for it is installed
        config.ws = type("BoundedWebSocket", (_Impatient, base), {"patience_s": patience_s})
