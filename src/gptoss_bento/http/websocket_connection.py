"""A WebSocket connection below its messages: uvicorn's protocol, with the limits that it lacks.

uvicorn's flow control holds messages back while a client reads none, and its pings find a client that is gone. But it
bounds neither the time for a message nor what all incomplete messages hold, and closing waits without end for what was
written to be read; meanwhile a generation, or the end of the service, would wait for it.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode
from websockets.protocol import State

from gptoss_bento.http.body_memory import bodies
from gptoss_bento.http.reader_patience import ReaderPatience

_FRAME_BYTES = 64  # what a fragment takes beside its data, which may be empty


class BoundedWebSocket(ReaderPatience, WebSocketsSansIOProtocol):
    """One connection. The class attribute is its limit; `limit_websockets` makes a class with another."""

    unread = "its events"
    _completing: asyncio.TimerHandle | None = None
    _closing: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._closing is not None:
            self._closing.cancel()
        self._end_message()
        super().connection_lost(exc)

    # a message that has no end

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing() or not (size := self._unfinished()):
            self._end_message()
            return
        if self._completing is None:
            self._completing = self._in_time(self._refuse_slow)
        bodies.hold(self, size, self.config.ws_max_size, self._evict)

    def send_receive_event_to_app(self) -> None:
        super().send_receive_event_to_app()
        self._end_message()  # the next may have started in the same piece

    def _unfinished(self) -> int:
        """Bytes of a message that is incomplete: its fragments, and what there is of the frame after them."""
        conn = self.conn
        return (conn.current_size or 0) + len(conn.reader.buffer) + _FRAME_BYTES * len(self.frames)

    def _refuse_slow(self) -> None:
        if self.read_paused:  # it waits for us
            self._completing = self._in_time(self._refuse_slow)
        else:
            self._refuse(CloseCode.POLICY_VIOLATION, f"A message must arrive within {self.patience_s:g} s.")

    def _evict(self) -> None:
        reason = "Too many large messages are on their way to this server. Try again later."
        self._refuse(CloseCode.TRY_AGAIN_LATER, reason)

    def _refuse(self, code: CloseCode, reason: str) -> None:
        self._end_message()
        if self.conn.state is not State.OPEN:  # it was not accepted yet, or is being closed
            self.transport.abort()
            return
        self.conn.fail(code, reason)
        self.frames = []
        self.handle_parser_exception()  # closes the connection as for any message that is refused

    def _end_message(self) -> None:
        bodies.leave(self)
        if self._completing is not None:
            self._completing.cancel()
            self._completing = None

    # a client that does not read

    async def run_asgi(self) -> None:
        try:
            await super().run_asgi()
        finally:
            self._end_in_time()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._end_in_time()

    def shutdown(self) -> None:
        super().shutdown()
        self._end_in_time()

    def _end_in_time(self) -> None:
        """What was written is left to be read for so long: writing is not paused for a little, so no timer runs."""
        if self._closing is None and not self.disconnected:
            self._closing = self._in_time(self.transport.abort)
