"""How long a connection, of HTTP or WebSockets, waits for a client that does not read."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)


class ReaderPatience(asyncio.Protocol):
    """Comes before a protocol of uvicorn: cuts a connection whose writing stays paused for too long.

    The class attributes are the limit, and what the log says that a client left unread.
    """

    patience_s = 120.0
    unread = "its answer"
    loop: asyncio.AbstractEventLoop
    transport: Any
    _reading: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_reading()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._reading is None:
            self._reading = self._in_time(self._give_up)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_reading()

    def _give_up(self) -> None:
        logger.info("a client left %s unread for %g s; its connection is cut", self.unread, self.patience_s)
        self.transport.abort()

    def _end_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _in_time(self, end: Callable[[], None]) -> asyncio.TimerHandle:
        return self.loop.call_later(self.patience_s, end)
