"""Streams of requests of fixed lengths from several client processes: prompts of random token ids, answers to the end.

No two prompts begin alike, so none finds its beginning in the prefix cache. A failed request is counted and reported,
and its stream goes on. What a request is timed by is what `vllm bench serve` times it by: every message with tokens.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from gptoss_bento.bench.connection import Answer, Connection, connect, post
from gptoss_bento.bench.load import lengths
from gptoss_bento.bench.swarm import Swarm
from gptoss_bento.demo.checkpoint import FIRST_SPECIAL
from gptoss_bento.errors import BenchmarkError

_LONGEST_ANSWER_S = 300.0
_CONNECT_S = 0.5  # for all processes to have connected when the first asks
_PREPARED_TOKENS_PER_S = 2e6  # of prompts, drawn and written as JSON: a quarter of what one core does
_MOST_ERRORS = 5  # kept as texts; all are counted


@dataclass(frozen=True)
class Lengths:
    """Tokens of a prompt, and of an answer.

    Args:
        spread: answers have from 1 - spread to 1 + spread times as many; 0: all of them as many.
    """

    input_tokens: int
    output_tokens: int
    spread: float = 0.0

    def __str__(self) -> str:
        return f"{self.input_tokens}:{self.output_tokens}"


@dataclass(frozen=True)
class TokenLoad:
    """So many requests, `streams` of them at any time."""

    streams: int
    requests: int
    lengths: Lengths

    def __str__(self) -> str:
        return f"{self.streams} stream{'s' if self.streams > 1 else ''}, {self.lengths}"


@dataclass(frozen=True)
class Target:
    """The server that is asked.

    Args:
        url: ends in /v1.
        new_connections: one for each request; otherwise each stream keeps its own.
    """

    url: str
    model: str
    key: str | None = None
    new_connections: bool = False

    def request(self, prompt: Sequence[int], tokens: int) -> bytes:
        """The bytes that ask for exactly so many tokens, whatever they are, sampled as the server does by itself."""
        body = {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": tokens,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        content = json.dumps(body).encode()
        return post(f"{self.url}/completions", content, self.key, close=self.new_connections)


@dataclass(frozen=True)
class Sample:
    """One answer: seconds from its request to its first and its last message with tokens."""

    first_s: float
    last_s: float
    tokens: int


@dataclass
class Answers:
    """What came back, in seconds by the clock that all processes share.

    Args:
        late_s: by how much the last process to begin began too late.
        gaps_s: the times between two messages of an answer, of all answers.
        failed: the number of requests that failed; `errors` has the first of their texts.
    """

    started: float = 0.0
    ended: float = 0.0
    cpu_s: float = 0.0
    late_s: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    gaps_s: array[float] = field(default_factory=lambda: array("d"))
    failed: int = 0
    errors: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """From the first request to the end of the last answer."""
        return self.ended - self.started

    def add(self, other: Answers) -> None:
        """Takes in what another process got at the same time."""
        self.started = min(self.started or other.started, other.started)
        self.ended = max(self.ended, other.ended)
        self.cpu_s += other.cpu_s
        self.late_s = max(self.late_s, other.late_s)
        self.samples += other.samples
        self.gaps_s += other.gaps_s
        self.failed += other.failed
        self.errors = (self.errors + other.errors)[:_MOST_ERRORS]

    def take(self, started: float, answer: Answer) -> None:
        """One more answer."""
        times = answer.event_times()
        self.samples.append(Sample(times[0] - started, times[-1] - started, answer.tokens))
        self.gaps_s.extend(later - earlier for earlier, later in itertools.pairwise(times))

    def miss(self, error: Exception) -> None:
        """One more request that failed."""
        self.failed += 1
        if len(self.errors) < _MOST_ERRORS:
            self.errors.append(str(error) or type(error).__name__)


def measure(clients: Swarm, target: Target, load: TokenLoad, seed: str) -> Answers:
    """Runs a load to its end.

    Args:
        seed: decides the prompts; two loads with the same seed ask the same.
    """
    prepare_s = load.requests * load.lengths.input_tokens / clients.processes / _PREPARED_TOKENS_PER_S
    start = time.perf_counter() + _CONNECT_S + prepare_s
    found = Answers()
    for each in clients.spread(_run_in_process, list(_parts(clients, target, load, seed, start))):
        found.add(each)
    return found


def wake(clients: Swarm) -> None:
    """Lets all client processes start and import what they need, so that none of them comes late to a load."""
    clients.spread(_pause, [(0.2,)] * clients.processes)


_Part = tuple[Target, int, list[int], int, str, float]


def _parts(clients: Swarm, target: Target, load: TokenLoad, seed: str, start: float) -> Iterator[_Part]:
    """Each process gets its share of the streams and of the requests."""
    asked = lengths(load.requests, load.lengths.output_tokens, load.lengths.spread)
    processes = min(clients.processes, load.streams)
    for index, streams in enumerate(clients.shares(load.streams)[:processes]):
        yield target, streams, asked[index::processes], load.lengths.input_tokens, f"{seed}/{index}", start


# --- in a client process ---------------------------------------------------------------------------------------------


def _pause(seconds: float) -> None:
    time.sleep(seconds)


def _run_in_process(target: Target, streams: int, asked: list[int], prompt: int, seed: str, start: float) -> Answers:
    return asyncio.run(_run(target, streams, asked, prompt, seed, start))


async def _run(target: Target, streams: int, asked: list[int], prompt: int, seed: str, start: float) -> Answers:
    source = random.Random(seed)  # noqa: S311  # prompts, not secrets
    requests = [(target.request(source.choices(range(FIRST_SPECIAL), k=prompt), tokens), tokens) for tokens in asked]
    left = iter(requests)
    found = Answers()
    lines = [_Stream(target, found) for _ in range(streams)]
    for line in lines:
        with suppress(OSError):  # counted when the first request cannot be sent
            await line.connect()
    await asyncio.sleep(start - time.perf_counter())
    found.started, before = time.perf_counter(), time.process_time()
    found.late_s = found.started - start
    await asyncio.gather(*(line.run(left) for line in lines))
    found.cpu_s, found.ended = time.process_time() - before, time.perf_counter()
    return found


class _Stream:
    """One of the requests that run at the same time; takes the next one there is."""

    def __init__(self, target: Target, found: Answers) -> None:
        self._target = target
        self._found = found
        self._connection: Connection | None = None

    async def connect(self) -> Connection:
        if self._connection is None or self._connection.is_closed:
            self._connection = await connect(self._target.url)
        return self._connection

    async def run(self, requests: Iterator[tuple[bytes, int]]) -> None:
        for request, tokens in requests:
            try:
                await self._ask(request, tokens)
            except (BenchmarkError, OSError) as error:
                self._found.miss(error)
                self._drop()
        self._drop()

    async def _ask(self, request: bytes, tokens: int) -> None:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(_LONGEST_ANSWER_S):
                answer = await (await self.connect()).ask(request)
        except TimeoutError:
            raise BenchmarkError(f"The answer did not end within {_LONGEST_ANSWER_S:.0f} s.") from None
        answer.check_stream(tokens)
        self._found.take(started, answer)
        if self._target.new_connections:
            self._drop()

    def _drop(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None
