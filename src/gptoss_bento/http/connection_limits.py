"""How long and how much a connection may keep us waiting, below HTTP: uvicorn's protocol with limits that it lacks.

uvicorn 0.54 on httptools bounds neither the size of a request's head, nor the time for it, nor what its body has
besides (trailers, which httptools gathers, and chunks' extensions), and waits without end for a reader that does not
read; its flow control holds the answer back meanwhile, so such a reader costs no memory, but its slot in the engine.
Its keep-alive timer ends with the first byte after an answer, also one that begins no request: a byte of a body that
was answered unread, or an empty line.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gptoss_bento.http.body import ARRIVAL, DISCARDED_BYTES, Arrival
from gptoss_bento.http.reader_patience import ReaderPatience

MAX_HEADERS = 256
"""As vLLM's own server (`h11_max_header_count`)."""


class _HeadTooLargeError(Exception):
    pass


class BoundedConnection(ReaderPatience, HttpToolsProtocol):
    """One connection. The class attributes are its limits; `bounded` makes a class with others."""

    max_head_bytes = 65_536

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_bytes = self._header_count = 0
        self._is_in_head = True  # or before the first
        self._beside_body = 0  # bytes given to the parser since a head began or ended, or since a piece of a body
        self._left = math.inf  # bytes that may come until the next head
        self._waiting: asyncio.TimerHandle | None = self._in_time(self._close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_waiting()
        super().connection_lost(exc)

    # no request: its head never started, never ends or is too large, or what comes is the rest of one answered

    def data_received(self, data: bytes) -> None:
        if self._beside_body > self.max_head_bytes or self._left < 0:
            self._refuse_more()
            return
        size = len(data)
        self._beside_body += size
        self._left -= size
        super().data_received(data)
        if self._is_in_head and self._waiting is None and not self._is_answering():
            self._waiting = self._in_time(self._close)  # most heads come in one piece and need no timer

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._end_waiting()
        self._is_in_head = True
        self._head_bytes = self._header_count = self._beside_body = 0
        self._left = math.inf

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._close()
        elif not self._is_answering():  # no further one was sent ahead
            self._end_waiting()
            if self._is_in_head:  # but started
                self._unset_keepalive_if_required()
                self._waiting = self._in_time(self._close)
            else:
                self._left = DISCARDED_BYTES
                self._waiting = self.loop.call_later(max(self.patience_s, self.timeout_keep_alive), self._close)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        async def closing_what_broke_off(scope: Any, receive: Any, send: Any) -> Any:
            send = _unchunked(cycle, send) if scope["http_version"] == "1.0" else send
            try:
                return await app(scope, receive, send)
            finally:
                if cycle.response_started and not cycle.response_complete and not cycle.disconnected:
                    self._close()  # uvicorn would too, and wait without end for what was written to be read

        super()._start_asgi_task(cycle, closing_what_broke_off)

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_count += 1
        self._count(len(name) + len(value) + len(": \r\n"))
        super().on_header(name, value)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_is_too_large():
            raise _HeadTooLargeError  # httptools makes its own error of it, which uvicorn answers

    def _head_is_too_large(self) -> bool:
        return self._head_bytes > self.max_head_bytes or self._header_count > MAX_HEADERS

    def on_headers_complete(self) -> None:
        self._end_waiting()
        self._is_in_head = False
        self._beside_body = 0
        self._arrival = self.scope[ARRIVAL] = Arrival()  # type: ignore[literal-required]
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._beside_body = 0  # `read_body` counts; what is left are trailers, chunks' extensions and empty lines
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._arrival.is_complete = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        if self._head_is_too_large():
            self._refuse_more()
            return
        super().send_400_response(msg)
        self._close()

    def _refuse_more(self) -> None:
        if self._may_answer_now():
            text = b"The head of the request is too large."
            head = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
            self.transport.write(head + b"content-length: %d\r\nconnection: close\r\n\r\n%s" % (len(text), text))
        self._close()

    def _may_answer_now(self) -> bool:
        """Not in the middle of another answer, nor twice."""
        if self._is_in_head:
            return not self._is_answering()
        return not (self.cycle.response_started or self.pipeline)

    def _close(self) -> None:
        self.transport.close()
        self._end_waiting()
        self._waiting = self._in_time(self.transport.abort)  # closing waits for what was written to be read

    def _end_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._close()


def _unchunked(cycle: RequestResponseCycle, send: Any) -> Any:
    """A `send` for clients of HTTP/1.0, who know no chunks: what has no length ends with the connection."""

    has_length = False

    async def plain(message: Any) -> None:
        nonlocal has_length
        if message["type"] == "http.response.start":
            has_length = any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
            cycle.chunked_encoding = None if has_length else False
        elif not has_length:
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    return plain


def bounded(max_head_bytes: int, patience_s: float) -> type[BoundedConnection]:
    """The class of connections with these limits, which uvicorn makes one of for each."""
    limits = {"max_head_bytes": max_head_bytes, "patience_s": patience_s}
    return type(BoundedConnection.__name__, (BoundedConnection,), limits)
