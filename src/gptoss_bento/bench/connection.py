"""HTTP/1.1 to a server under measurement, with as little Python for a message as can be.

A message costs one call of `data_received`; its content is parsed when the answer is complete.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import cast
from urllib.parse import urlsplit

from gptoss_bento.errors import BenchmarkError

_END_OF_HEADERS, _END_OF_CHUNKS = b"\r\n\r\n", b"\r\n0\r\n\r\n"
_END_OF_EVENT = b"\n\n"  # of Server-Sent Events; a line break within a text is escaped in its JSON
_DONE = b"data: [DONE]"
_TOKENS = re.compile(rb'"(?:completion|output)_tokens": ?(\d+)')
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_AFTER_THE_TEXT = 2  # events: the usage, and [DONE]
_NAMED_EVENT = re.compile(rb"event: (\S+)")  # each of a stream of responses has a name
_SHOWN = 300  # characters of an answer that is no success


def post(url: str, body: bytes, key: str | None = None, *, close: bool = False) -> bytes:
    """The bytes of a request with a JSON body.

    Args:
        key: goes into the Authorization header.
        close: the server is asked to close the connection after its answer.
    """
    to = urlsplit(url)
    target = to.path + (f"?{to.query}" if to.query else "")
    further = (f"Authorization: Bearer {key}\r\n" if key else "") + ("Connection: close\r\n" if close else "")
    head = f"POST {target} HTTP/1.1\r\nHost: {to.netloc}\r\nContent-Type: application/json\r\n{further}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@asynccontextmanager
async def connections(url: str, count: int) -> AsyncIterator[list[Connection]]:
    """So many connections to the server of `url`, closed at the end of the block.

    Raises:
        OSError: the server does not accept one.
    """
    opened = []
    try:
        for _ in range(count):
            opened.append(await connect(url))  # noqa: PERF401  # what is open already must be closed
        yield opened
    finally:
        for connection in opened:
            connection.close()
        await asyncio.sleep(0)  # they close in the loop's next turn


async def connect(url: str) -> Connection:
    """One connection to the server of `url`.

    Raises:
        OSError: the server does not accept it.
    """
    to = urlsplit(url)
    _, connection = await asyncio.get_running_loop().create_connection(Connection, str(to.hostname), to.port or 80)
    return connection


@dataclass
class Answer:
    """The bytes of one answer, and when how many events came."""

    body: bytearray = field(default_factory=bytearray)
    arrivals: list[tuple[float, int]] = field(default_factory=list)

    def add(self, data: bytes) -> bool:
        """Whether all is there now."""
        split = self.body.endswith(b"\n") and data.startswith(b"\n")
        self.arrivals.append((time.perf_counter(), data.count(_END_OF_EVENT) + split))
        self.body += data
        if self.body.endswith(_END_OF_CHUNKS):
            return True
        return _END_OF_HEADERS in self.body[:4096] and self._length is not None and len(self.body) >= self._length

    @cached_property
    def _length(self) -> int | None:
        """Of head and body together, where the head has a length; called once the head is there."""
        head, _, _ = bytes(self.body).partition(_END_OF_HEADERS)
        found = _LENGTH.search(head)
        return len(head) + len(_END_OF_HEADERS) + int(found[1]) if found else None

    def check(self) -> None:
        """Raises BenchmarkError for anything but a whole success."""
        if not self.body.startswith(b"HTTP/1.1 200 ") or not self.tokens:
            raise BenchmarkError(f"The server answered {self.body[-_SHOWN:].decode(errors='replace')!r}.")

    def check_stream(self, tokens: int) -> None:
        """Raises BenchmarkError for anything but a stream of so many tokens that was ended as it should be."""
        self.check()
        if self.tokens != tokens:
            raise BenchmarkError(f"The server counted {self.tokens} tokens, but {tokens} were asked for.")
        if not self.is_done:
            raise BenchmarkError("The stream ended without [DONE].")

    @cached_property
    def tokens(self) -> int:
        """The server's own count."""
        counts = _TOKENS.findall(self.body)
        return int(counts[-1]) if counts else 0

    @property
    def is_done(self) -> bool:
        """Whether a stream says that it is complete."""
        return _DONE in self.body[-_SHOWN:]

    def event_times(self) -> list[float]:
        """When each message with text came."""
        times = [when for when, events in self.arrivals for _ in range(events)]
        if names := _NAMED_EVENT.findall(self.body):
            deltas = [when for when, name in zip(times, names, strict=False) if name.endswith(b".delta")]
            return deltas or times[-1:]
        return times[:-_AFTER_THE_TEXT] or times[:1]


class Connection(asyncio.Protocol):
    """One connection, for one request at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._answer = Answer()
        self._whole: asyncio.Future[Answer] | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._whole and not self._whole.done():
            self._whole.set_exception(BenchmarkError(f"The server closed the connection ({exc or 'no reason'})."))

    def data_received(self, data: bytes) -> None:
        if self._answer.add(data) and self._whole and not self._whole.done():
            self._whole.set_result(self._answer)

    async def ask(self, request: bytes) -> Answer:
        """The whole answer.

        Raises:
            BenchmarkError: the server closed the connection before its end.
        """
        self._answer = Answer()
        self._whole = asyncio.get_running_loop().create_future()
        if self._transport.is_closing():
            raise BenchmarkError("The server closed the connection after its last answer.")
        self._transport.write(request)
        return await self._whole

    @property
    def is_closed(self) -> bool:
        """Whether no further request can be sent."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Without waiting for what is on its way."""
        self._transport.abort()
