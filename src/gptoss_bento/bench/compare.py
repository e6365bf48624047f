"""The benchmark itself: which server runs when, and under which load."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import httpx

from gptoss_bento.bench import load, servers
from gptoss_bento.bench.report import Run
from gptoss_bento.bench.servers import RunningServer

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


def compare_together(
    argv: Sequence[str], variables: dict[str, str], model: str, rounds: int, shape: Shape, tell: Callable[[str], None]
) -> tuple[list[Run], list[Run]]:
    """Starts both servers once and loads them in turn, one after the other at each number of streams.

    The speed of a machine that others use too changes within minutes, by more than what is looked for; here both
    servers meet the same minute. The machine must have room for two engines, so this is for CPUs and small models. The
    arguments and what is returned are those of `compare`; how long a start took is told in the first run of either.
    """
    found: dict[str, list[Run]] = {OURS: [], BARE: []}
    with ExitStack() as stack:
        running: dict[str, RunningServer] = {}
        for server in found:
            tell(f"starting {server}")
            running[server] = stack.enter_context(servers.started(_command(server, argv), variables))
        for each in running.values():
            _warm_up(each.base_url, model)
        for number in range(rounds):
            tell(f"round {number + 1} of {rounds}")
            loads = _loads_in_turn(number, running, model, shape)
            for server, each in running.items():
                found[server].append(Run(server, None if number else each.ready_s, loads[server], each.memory()))
    return found[OURS], found[BARE]


def _loads_in_turn(
    number: int, running: dict[str, RunningServer], model: str, shape: Shape
) -> dict[str, tuple[load.Load, ...]]:
    """Each server goes first in half of the rounds."""
    order = list(running) if number % 2 == 0 else list(reversed(running))
    found: dict[str, tuple[load.Load, ...]] = dict.fromkeys(running, ())
    for n in shape.streams:
        for server in order:
            found[server] += (_load(running[server].base_url, model, n, shape),)
    return found


def _run(server: str, argv: Sequence[str], variables: dict[str, str], model: str, shape: Shape) -> Run:
    with servers.started(_command(server, argv), variables) as running:
        loads = _loads(running.base_url, model, shape)
        return Run(server, running.ready_s, loads, running.memory())


def _command(server: str, argv: Sequence[str]) -> Callable[[int], Sequence[str]]:
    return servers.ours if server == OURS else partial(servers.bare_vllm, argv=argv)


def _loads(url: str, model: str, shape: Shape) -> tuple[load.Load, ...]:
    _warm_up(url, model)
    return tuple(_load(url, model, n, shape) for n in shape.streams)


def _warm_up(url: str, model: str) -> None:
    asyncio.run(load.measure(url, model, 4, 8, 16))


def _load(url: str, model: str, streams: int, shape: Shape) -> load.Load:
    return asyncio.run(load.measure(url, model, streams, shape.requests(streams), shape.max_tokens))
