"""The benchmark itself: which server runs when, and under which load."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import httpx

from gptoss_bento.bench import load, servers
from gptoss_bento.bench.report import Run

OURS, BARE = "gptoss-bento", "vLLM"


@dataclass(frozen=True)
class Shape:
    """How much is asked of a server."""

    streams: tuple[int, ...] = (1, 8, 32)
    requests_per_stream: int = 5
    least_requests: int = 24
    max_tokens: int = 64

    def requests(self, streams: int) -> int:
        """How many requests at this number of streams."""
        return max(self.least_requests, streams * self.requests_per_stream)


def measure_running(url: str, model: str | None, shape: Shape) -> Run:
    """Measures a server that is there already; `url` ends in /v1. Without a model, the first it lists."""
    if model is None:
        models = httpx.get(f"{url}/models").raise_for_status().json()
        model = str(models["data"][0]["id"])
    return Run(url, None, _loads(url, model, shape), None)


def compare(
    argv: Sequence[str], variables: dict[str, str], model: str, runs: int, shape: Shape, tell: Callable[[str], None]
) -> tuple[list[Run], list[Run]]:
    """Starts and measures both servers `runs` times, in alternating order, one at a time.

    Args:
        argv: vLLM's arguments as this service plans them; bare vLLM gets the same.
        variables: what both need in their environment, such as the vocabulary's folder.
        tell: is told what happens.

    Returns:
        The runs of this service and those of bare vLLM.
    """
    found: dict[str, list[Run]] = {OURS: [], BARE: []}
    for number in range(runs):
        for server in (OURS, BARE) if number % 2 == 0 else (BARE, OURS):
            tell(f"run {number + 1} of {runs}: {server}")
            found[server].append(_run(server, argv, variables, model, shape))
    return found[OURS], found[BARE]


def _run(server: str, argv: Sequence[str], variables: dict[str, str], model: str, shape: Shape) -> Run:
    command: Callable[[int], Sequence[str]] = servers.ours if server == OURS else partial(servers.bare_vllm, argv=argv)
    with servers.started(command, variables) as running:
        loads = _loads(running.base_url, model, shape)
        return Run(server, running.ready_s, loads, running.memory())


def _loads(url: str, model: str, shape: Shape) -> tuple[load.Load, ...]:
    async def all_loads() -> tuple[load.Load, ...]:
        await load.measure(url, model, 4, 8, 16)  # warms up
        return tuple([await load.measure(url, model, n, shape.requests(n), shape.max_tokens) for n in shape.streams])

    return asyncio.run(all_loads())
