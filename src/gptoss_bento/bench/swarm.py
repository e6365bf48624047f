"""Many streams from several client processes, with as little Python for a message as can be.

A server writes a thousand messages while httpx reads a hundred and fifty or so: with `load.py` as the client, two cores
would measure the client. Here a message costs one call of `data_received`; it is parsed when all is there.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from gptoss_bento.bench.connection import Connection, connections, post
from gptoss_bento.bench.load import lengths, prompt

_Result = TypeVar("_Result")

_START_DELAY_S = 0.5  # so that all processes have connected when the first asks
_MOST_REQUESTS = 10**7  # of one process in one load; their prompts are numbered
_numbers = itertools.count()


class Route(StrEnum):
    """Which of the OpenAI routes is asked."""

    COMPLETIONS = "completions"
    CHAT = "chat"
    RESPONSES = "responses"

    @property
    def path(self) -> str:
        return {"completions": "/completions", "chat": "/chat/completions", "responses": "/responses"}[self.value]

    def question(self, text: str) -> dict[str, Any]:
        """The fields that hold a prompt."""
        if self is Route.CHAT:
            return {"messages": [{"role": "user", "content": text}]}
        return {"prompt" if self is Route.COMPLETIONS else "input": text}

    def length(self, tokens: int) -> dict[str, Any]:
        """The fields that ask for exactly so many tokens, whatever they are."""
        most = "max_output_tokens" if self is Route.RESPONSES else "max_tokens"
        return {most: tokens, "ignore_eos": True}

    @property
    def streamed(self) -> dict[str, Any]:
        """The fields that ask for a stream with its usage, which a stream of responses always has."""
        return {"stream": True} | ({} if self is Route.RESPONSES else {"stream_options": {"include_usage": True}})


@dataclass(frozen=True)
class StreamLoad:
    """What is asked: `requests` times as many requests as there are streams; `query` is that of the URL.

    `max_tokens` is what answers have on average, see `load.lengths`; in turn, each has as many. `store` is the field of
    responses.
    """

    url: str
    model: str
    route: Route
    streaming: bool
    max_tokens: int
    requests: int
    key: str | None = None
    query: str = ""
    store: bool | None = None

    def body(self, text: str, tokens: int) -> bytes:
        """Asks for exactly so many tokens, whatever they are."""
        asked = {"model": self.model, **self.route.question(text), **self.route.length(tokens)}
        stream = self.route.streamed if self.streaming else {}
        store = {} if self.store is None else {"store": self.store}
        return json.dumps({**asked, **stream, **store}).encode()

    def request(self, text: str, tokens: int) -> bytes:
        """The bytes that go over the connection."""
        path = self.route.path + (f"?{self.query}" if self.query else "")
        return post(f"{self.url}{path}", self.body(text, tokens), self.key)


@dataclass
class Timings:
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

    def add(self, other: Timings) -> None:
        """Adds what another process received at the same time."""
        self.started = min(self.started or other.started, other.started)
        self.ended = max(self.ended, other.ended)
        self._merge(other)

    def then(self, later: Timings) -> None:
        """Adds what was received later, without the time between."""
        self.ended += later.seconds
        self._merge(later)

    def _merge(self, other: Timings) -> None:
        for name in ("cpu_s", "tokens", "messages", "first_s", "whole_s", "gaps_s"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Swarm:
    """Client processes that are there already."""

    def __init__(self, pool: ProcessPoolExecutor, processes: int) -> None:
        self._pool = pool
        self.processes = processes

    def run(self, load: StreamLoad, streams: int) -> Timings:
        """Runs all streams to their end.

        Raises:
            BenchmarkError: a request failed; a benchmark with errors in it says nothing.
        """
        start = time.perf_counter() + _START_DELAY_S
        timings = Timings()
        for each in self.spread(
            _time_streams, [(load, share, start, next(_numbers)) for share in self.shares(streams) if share]
        ):
            timings.add(each)
        return timings

    def shares(self, number: int) -> list[int]:
        """How many of so many each process gets."""
        return [number // self.processes + (index < number % self.processes) for index in range(self.processes)]

    def spread(self, function: Callable[..., _Result], arguments: list[tuple[Any, ...]]) -> list[_Result]:
        """Calls a function of a module with each of the arguments, each call in a separate process."""
        return [each.result() for each in [self._pool.submit(function, *each) for each in arguments]]

    def run_in_turn(self, one: StreamLoad, other: StreamLoad) -> tuple[Timings, Timings]:
        """One stream that asks the two in turn, on one connection; each goes first in half of the pairs.

        The results are in the order of the pairs, so that their differences can be computed.

        Raises:
            BenchmarkError: a request failed.
        """
        return self._pool.submit(_time_in_turn, one, other, next(_numbers)).result()


@contextmanager
def swarm(processes: int) -> Iterator[Swarm]:
    """Client processes until the end of the block; each one is busy on one core at most."""
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        yield Swarm(pool, processes)


# --- in a client process ---------------------------------------------------------------------------------------------


def _time_streams(ask: StreamLoad, streams: int, start: float, number: int) -> Timings:
    return asyncio.run(_run(ask, streams, start, number))


async def _run(ask: StreamLoad, streams: int, start: float, number: int) -> Timings:
    numbers = itertools.count(number * _MOST_REQUESTS)
    asked = lengths(streams * ask.requests, ask.max_tokens)
    requests = [ask.request(prompt(next(numbers)), tokens) for tokens in asked]
    async with connections(ask.url, streams) as opened:
        await asyncio.sleep(start - time.perf_counter())
        return await _all_streams(opened, requests, ask.streaming)


def _time_in_turn(one: StreamLoad, other: StreamLoad, number: int) -> tuple[Timings, Timings]:
    return asyncio.run(_run_in_turn(one, other, number))


async def _run_in_turn(one: StreamLoad, other: StreamLoad, number: int) -> tuple[Timings, Timings]:
    numbers = itertools.count(number * _MOST_REQUESTS)
    order = [(one, Timings()), (other, Timings())]
    async with connections(one.url, 1) as (connection,):
        for pair in range(one.requests):
            for ask, timings in order if pair % 2 == 0 else reversed(order):
                request = ask.request(prompt(next(numbers)), ask.max_tokens)
                await _stream(connection, iter([request]), ask.streaming, timings)
    return order[0][1], order[1][1]


async def _all_streams(opened: list[Connection], requests: list[bytes], streaming: bool) -> Timings:
    """Each stream takes the next request there is, so that all are busy until the last ones."""
    timings = Timings(started=time.perf_counter())
    before = time.process_time()
    left = iter(requests)
    await asyncio.gather(*(_stream(connection, left, streaming, timings) for connection in opened))
    timings.cpu_s = time.process_time() - before
    timings.ended = time.perf_counter()
    return timings


async def _stream(connection: Connection, requests: Iterator[bytes], streaming: bool, timings: Timings) -> None:
    for request in requests:
        started = time.perf_counter()
        answer = await connection.ask(request)
        answer.check()
        times = answer.event_times() if streaming else [answer.arrivals[-1][0]]
        timings.tokens += answer.tokens
        timings.messages += len(times)
        timings.first_s.append(times[0] - started)
        timings.whole_s.append(times[-1] - started)
        timings.gaps_s += [later - earlier for earlier, later in itertools.pairwise(times)]
