"""Puts streams of completions on a server and times what comes back."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

import httpx

PROMPT_WORDS = 48
_REQUEST_TIMEOUT_S = 600.0
_GOLDEN_RATIO = 0.618034  # its multiples without their whole part lie evenly between 0 and 1, and neighbours far apart
_numbers = itertools.count()


@dataclass(frozen=True)
class Sample:
    """One streamed request, in seconds from its start; `tokens` is the server's own count."""

    first_token_s: float
    total_s: float
    tokens: int

    @property
    def per_token_s(self) -> float:
        """Time per output token after the first."""
        return (self.total_s - self.first_token_s) / max(self.tokens - 1, 1)


@dataclass(frozen=True)
class Load:
    """What one number of streams gave."""

    streams: int
    requests: int
    tokens_per_s: float
    first_token_median_ms: float
    first_token_p99_ms: float
    per_token_median_ms: float


async def measure(base_url: str, model: str, streams: int, requests: int, max_tokens: int) -> Load:
    """Keeps `streams` requests running until `requests` are answered.

    Args:
        base_url: ends in /v1.
        max_tokens: answers have this many tokens on average; see `lengths`.

    Raises:
        httpx.HTTPError: a request failed; a benchmark with errors in it says nothing.
    """
    limits = httpx.Limits(max_connections=streams, max_keepalive_connections=streams)
    async with httpx.AsyncClient(base_url=base_url, timeout=_REQUEST_TIMEOUT_S, limits=limits) as client:
        remaining = iter(lengths(requests, max_tokens))
        samples: list[Sample] = []

        async def stream() -> None:
            samples.extend([await _one(client, model, tokens) for tokens in remaining])

        started = time.perf_counter()
        await asyncio.gather(*(stream() for _ in range(streams)))
        seconds = time.perf_counter() - started
    return summarize(streams, samples, seconds)


def lengths(requests: int, average: int) -> list[int]:
    """How many tokens each answer has: from half to one and a half of the average, the same in every measurement.

    If all were of one length, streams that begin together would end together, wave after wave, and the time to the
    first token would tell in which engine step the middle of a wave is taken in, which a millisecond decides.
    """
    return [max(1, average // 2 + int(number * _GOLDEN_RATIO % 1 * (average + 1))) for number in range(requests)]


def prompt(number: int) -> str:
    """Each begins differently, so that no request finds another one's prefix in the cache."""
    return f"{number} " + "word " * PROMPT_WORDS


async def _one(client: httpx.AsyncClient, model: str, max_tokens: int) -> Sample:
    body = {
        "model": model,
        "prompt": prompt(next(_numbers)),
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    started = time.perf_counter()
    first = 0.0
    tokens = 0
    async with client.stream("POST", "/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            first = first or (time.perf_counter() - started if line else 0.0)
            if '"usage":{' in line:
                tokens = json.loads(line.removeprefix("data: "))["usage"]["completion_tokens"]
    if not tokens:
        raise httpx.RemoteProtocolError("The stream ended without its usage, so with an error.")
    return Sample(first, time.perf_counter() - started, tokens)


def summarize(streams: int, samples: list[Sample], seconds: float) -> Load:
    """Medians and the 99th percentile of the samples, and the rate over the whole time."""
    first = [sample.first_token_s for sample in samples]
    return Load(
        streams=streams,
        requests=len(samples),
        tokens_per_s=sum(sample.tokens for sample in samples) / seconds,
        first_token_median_ms=1000 * median(first),
        first_token_p99_ms=1000 * p99(first),
        per_token_median_ms=1000 * median(sample.per_token_s for sample in samples),
    )


def p99(values: Sequence[float]) -> float:
    """The 99th percentile; a single value is its own."""
    return quantiles(values, n=100, method="inclusive")[98] if len(values) > 1 else values[0]
