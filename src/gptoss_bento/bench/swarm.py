"""Many streams from several client processes, with as little Python for a message as can be.

A server writes a thousand messages while httpx reads a hundred and fifty or so: with `load.py` as the client, two cores
would measure the client. Here a message costs one call of `data_received`; what it says is looked at when all is there.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import multiprocessing
import re
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import cast
from urllib.parse import urlsplit

from gptoss_bento.bench.load import lengths, prompt
from gptoss_bento.errors import BenchmarkError

_START_DELAY_S = 0.5  # so that all processes have connected when the first asks
_END_OF_HEADERS, _END_OF_CHUNKS, _EVENT = b"\r\n\r\n", b"\r\n0\r\n\r\n", b"data: "
_TOKENS = re.compile(rb'"completion_tokens":(\d+)')
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_AFTER_THE_TEXT = 2  # events: the usage, and [DONE]
_MOST_REQUESTS = 10**7  # of one process in one load; their prompts are numbered
_SHOWN = 300  # characters of an answer that is no success
_numbers = itertools.count()


class Route(StrEnum):
    """Which of the two OpenAI routes is asked."""

    COMPLETIONS = "completions"
    CHAT = "chat"

    @property
    def path(self) -> str:
        return {"completions": "/completions", "chat": "/chat/completions"}[self.value]


@dataclass(frozen=True)
class Ask:
    """What is asked: `requests` times as many requests as there are streams; `query` is that of the URL.

    `max_tokens` is what answers have on average, see `load.lengths`; in turn, each has as many.
    """

    url: str
    model: str
    route: Route
    streaming: bool
    max_tokens: int
    requests: int
    key: str | None = None
    query: str = ""

    def body(self, text: str, tokens: int) -> bytes:
        """Asks for exactly so many tokens, whatever they are."""
        question = {"prompt": text} if self.route is Route.COMPLETIONS else {"messages": [_message(text)]}
        stream = {"stream": True, "stream_options": {"include_usage": True}} if self.streaming else {}
        length = {"max_tokens": tokens, "ignore_eos": True}
        return json.dumps({"model": self.model, **question, **length, **stream}).encode()

    def request(self, text: str, tokens: int) -> bytes:
        """The bytes that go over the connection."""
        url, body = urlsplit(self.url), self.body(text, tokens)
        target = f"{url.path}{self.route.path}" + (f"?{self.query}" if self.query else "")
        key = f"Authorization: Bearer {self.key}\r\n" if self.key else ""
        head = f"POST {target} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n{key}"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _message(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


@dataclass
class Heard:
    """What came back to one process, in seconds.

    `gaps_s` are the times between two messages of an answer. A server that falls behind puts several tokens into one.
    """

    started: float = 0.0
    ended: float = 0.0
    cpu_s: float = 0.0
    tokens: int = 0
    messages: int = 0
    first_s: list[float] = field(default_factory=list)
    whole_s: list[float] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """From the first request to the last answer."""
        return self.ended - self.started

    def add(self, other: Heard) -> None:
        """Takes in what another process heard at the same time."""
        self.started = min(self.started or other.started, other.started)
        self.ended = max(self.ended, other.ended)
        self._take_in(other)

    def then(self, later: Heard) -> None:
        """Takes in what was heard later, without the time between."""
        self.ended += later.seconds
        self._take_in(later)

    def _take_in(self, other: Heard) -> None:
        for name in ("cpu_s", "tokens", "messages", "first_s", "whole_s", "gaps_s"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Swarm:
    """Client processes that are there already."""

    def __init__(self, pool: ProcessPoolExecutor, processes: int) -> None:
        self._pool = pool
        self.processes = processes

    def ask(self, ask: Ask, streams: int) -> Heard:
        """Runs all streams to their end.

        Raises:
            BenchmarkError: a request failed; a benchmark with errors in it says nothing.
        """
        start = time.perf_counter() + _START_DELAY_S
        shares = [streams // self.processes + (number < streams % self.processes) for number in range(self.processes)]
        waiting = [self._pool.submit(_hear, ask, share, start, next(_numbers)) for share in shares if share]
        heard = Heard()
        for each in waiting:
            heard.add(each.result())
        return heard

    def ask_in_turn(self, one: Ask, other: Ask) -> tuple[Heard, Heard]:
        """One stream that asks the two in turn, on one connection; each goes first in half of the pairs.

        What was heard is in the order of the pairs, for a look at their differences.

        Raises:
            BenchmarkError: a request failed.
        """
        return self._pool.submit(_hear_in_turn, one, other, next(_numbers)).result()


@contextmanager
def swarm(processes: int) -> Iterator[Swarm]:
    """Client processes until the end of the block; each one is busy on one core at most."""
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        yield Swarm(pool, processes)


# --- in a client process ---------------------------------------------------------------------------------------------


def _hear(ask: Ask, streams: int, start: float, number: int) -> Heard:
    return asyncio.run(_run(ask, streams, start, number))


async def _run(ask: Ask, streams: int, start: float, number: int) -> Heard:
    numbers = itertools.count(number * _MOST_REQUESTS)
    asked = lengths(streams * ask.requests, ask.max_tokens)
    requests = [ask.request(prompt(next(numbers)), tokens) for tokens in asked]
    async with _connections(ask.url, streams) as connections:
        await asyncio.sleep(start - time.perf_counter())
        return await _all_streams(connections, requests, ask.streaming)


def _hear_in_turn(one: Ask, other: Ask, number: int) -> tuple[Heard, Heard]:
    return asyncio.run(_run_in_turn(one, other, number))


async def _run_in_turn(one: Ask, other: Ask, number: int) -> tuple[Heard, Heard]:
    numbers = itertools.count(number * _MOST_REQUESTS)
    order = [(one, Heard()), (other, Heard())]
    async with _connections(one.url, 1) as (connection,):
        for place in range(one.requests):
            for ask, heard in order if place % 2 == 0 else reversed(order):
                request = ask.request(prompt(next(numbers)), ask.max_tokens)
                await _stream(connection, iter([request]), ask.streaming, heard)
    return order[0][1], order[1][1]


@asynccontextmanager
async def _connections(url: str, count: int) -> AsyncIterator[list[_Connection]]:
    to = urlsplit(url)
    loop = asyncio.get_running_loop()
    opened = [await loop.create_connection(_Connection, str(to.hostname), to.port or 80) for _ in range(count)]
    try:
        yield [connection for _, connection in opened]
    finally:
        for transport, _ in opened:
            transport.abort()
        await asyncio.sleep(0)  # they close in the loop's next turn


async def _all_streams(connections: list[_Connection], requests: list[bytes], streaming: bool) -> Heard:
    """Each stream takes the next request there is, so that all are busy until the last ones."""
    heard = Heard(started=time.perf_counter())
    before = time.process_time()
    left = iter(requests)
    await asyncio.gather(*(_stream(connection, left, streaming, heard) for connection in connections))
    heard.cpu_s = time.process_time() - before
    heard.ended = time.perf_counter()
    return heard


async def _stream(connection: _Connection, requests: Iterator[bytes], streaming: bool, heard: Heard) -> None:
    for request in requests:
        started = time.perf_counter()
        answer = await connection.ask(request)
        answer.check()
        times = answer.event_times() if streaming else [answer.arrivals[-1][0]]
        heard.tokens += answer.tokens
        heard.messages += len(times)
        heard.first_s.append(times[0] - started)
        heard.whole_s.append(times[-1] - started)
        heard.gaps_s += [later - earlier for earlier, later in itertools.pairwise(times)]


@dataclass
class _Answer:
    """The bytes of one answer, and when how many events came."""

    body: bytearray = field(default_factory=bytearray)
    arrivals: list[tuple[float, int]] = field(default_factory=list)

    def add(self, data: bytes) -> bool:
        """Whether all is there now."""
        self.arrivals.append((time.perf_counter(), data.count(_EVENT)))
        self.body += data
        if self.body.endswith(_END_OF_CHUNKS):
            return True
        return _END_OF_HEADERS in self.body[:4096] and self._length is not None and len(self.body) >= self._length

    @cached_property
    def _length(self) -> int | None:
        """Of head and body together, where the head tells; asked for once the head is there."""
        head, _, _ = bytes(self.body).partition(_END_OF_HEADERS)
        found = _LENGTH.search(head)
        return len(head) + len(_END_OF_HEADERS) + int(found[1]) if found else None

    def check(self) -> None:
        """Raises BenchmarkError for anything but a whole success."""
        if not self.body.startswith(b"HTTP/1.1 200 ") or not self.tokens:
            raise BenchmarkError(f"The server answered {self.body[-_SHOWN:].decode(errors='replace')!r}.")

    @cached_property
    def tokens(self) -> int:
        """The server's own count."""
        counts = _TOKENS.findall(self.body)
        return int(counts[-1]) if counts else 0

    def event_times(self) -> list[float]:
        """When each message with text came."""
        times = [when for when, events in self.arrivals for _ in range(events)]
        return times[:-_AFTER_THE_TEXT] or times[:1]


class _Connection(asyncio.Protocol):
    """One connection, for one request at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._answer = _Answer()
        self._whole: asyncio.Future[_Answer] | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._whole and not self._whole.done():
            self._whole.set_exception(BenchmarkError(f"The server closed the connection ({exc or 'no reason'})."))

    def data_received(self, data: bytes) -> None:
        if self._answer.add(data) and self._whole and not self._whole.done():
            self._whole.set_result(self._answer)

    async def ask(self, request: bytes) -> _Answer:
        self._answer = _Answer()
        self._whole = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._whole
