"""Looks for requests that make an engine compile: `python -m tools.compilations http://127.0.0.1:3000/v1 --seconds 60`.

For a service on a GPU that is ready. It asks for completions of prompts from 1 to 8,000 tokens, over 1 to 512 streams,
with each kind of sampling that the API has, and reads from /metrics how many kernels the engine compiled meanwhile.
While one is compiled, every stream waits. The exit code is 1 if there were any, or if a request failed; with
`JIT_MONITOR_VERBOSE=true` the service names them in its log.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from gptoss_bento.bench.compilations import during

_ORDINARY_TOKENS = range(1000, 190_000)  # of o200k_harmony, far from control tokens
_LONGEST_PROMPT = 8000
_STREAMS = (1, 3, 16, 64, 200, 512)
_ANSWERS = (3, 5, 16, 64)  # tokens
_TURN_S = 3.0  # of one number of streams
_PLAIN = 0.7  # of the requests have no feature
_REQUEST_TIMEOUT_S = 300.0

FEATURES: Mapping[str, Mapping[str, Any]] = {
    "greedy": {"temperature": 0},
    "top_p": {"top_p": 0.9},
    "top_k": {"top_k": 30},
    "top_k and top_p": {"top_k": 30, "top_p": 0.8},
    "min_p": {"min_p": 0.1},
    "seed": {"seed": 3},
    "presence penalty": {"presence_penalty": 0.5},
    "repetition penalty": {"repetition_penalty": 1.2},
    "log probabilities": {"logprobs": 3},
    "log probabilities of the prompt": {"prompt_logprobs": 1},
    "logit bias": {"logit_bias": {"11": 2}},
    "bad words": {"bad_words": ["never"]},
    "minimum of tokens": {"min_tokens": 3},
    "two answers": {"n": 2},
    "JSON schema": {"structured_outputs": {"json": {"type": "object", "properties": {"x": {"type": "integer"}}}}},
    "regular expression": {"structured_outputs": {"regex": "[0-9]{3,9}"}},
}


@dataclass
class Search:
    """One server under random requests; the same ones for the same seed, as far as they get in the time."""

    client: httpx.AsyncClient
    model: str
    numbers: random.Random
    answered: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    async def run(self, seconds: float) -> None:
        """Each feature once alone, then turns of changing numbers of streams until the time is over."""
        for feature in FEATURES.values():
            await self.ask(feature)
        end = time.monotonic() + seconds
        for streams in itertools.cycle(_STREAMS):
            if time.monotonic() >= end:
                return
            turn = min(end, time.monotonic() + _TURN_S)
            await asyncio.gather(*(self._stream(turn) for _ in range(streams)))

    async def _stream(self, until: float) -> None:
        while time.monotonic() < until:
            plain = self.numbers.random() < _PLAIN
            await self.ask({} if plain else self.numbers.choice(list(FEATURES.values())))

    async def ask(self, feature: Mapping[str, Any]) -> None:
        """One request; a failure is counted by its text."""
        body = {
            "model": self.model,
            "prompt": self.numbers.choices(_ORDINARY_TOKENS, k=next(prompt_lengths(self.numbers))),
            "max_tokens": self.numbers.choice(_ANSWERS),
            "ignore_eos": True,
            **feature,
        }
        try:
            response = await self.client.post("/completions", json=body)
            response.raise_for_status()
            self.answered += 1
        except httpx.HTTPStatusError as error:
            self.failures[error.response.text[:200]] += 1
        except httpx.HTTPError as error:
            self.failures[f"{type(error).__name__}: {error}"] += 1


def prompt_lengths(numbers: random.Random) -> Iterator[int]:
    """From 1 to 8,000 tokens: two thirds as often short as long, by powers of two, and one third evenly."""
    while True:
        by_powers = int(2 ** numbers.uniform(0, 13))
        yield min(by_powers, _LONGEST_PROMPT) if numbers.random() < 2 / 3 else numbers.randint(1, _LONGEST_PROMPT)


async def search(url: str, seconds: float, seed: int, key: str | None) -> Search:
    """Runs one search on the first model that the server lists.

    Raises:
        httpx.HTTPError: the server does not answer.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Limits(max_connections=max(_STREAMS))
    async with httpx.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=_REQUEST_TIMEOUT_S) as client:
        models = (await client.get("/models")).raise_for_status().json()
        found = Search(client, str(models["data"][0]["id"]), random.Random(seed))  # noqa: S311  # not for secrets
        await found.run(seconds)
        return found


def main() -> int:
    """Prints what was seen; 1 if the engine compiled, a request failed, or the server does not count."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("url", help="ends in /v1")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--key")
    given = parser.parse_args()
    found, compiled = during(
        given.url, lambda: asyncio.run(search(given.url, given.seconds, given.seed, given.key)), given.key
    )
    print(f"{found.answered} requests answered, {found.failures.total()} failed")
    for text, times in found.failures.most_common(5):
        print(f"  {times} x {text}")
    if compiled is None:
        print("The server counts no compilations in /metrics.")
        return 1
    print(f"compiled meanwhile: {compiled.number} kernels in {compiled.seconds:.1f} s")
    return int(bool(compiled.number or found.failures))


if __name__ == "__main__":
    sys.exit(main())
