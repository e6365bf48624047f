"""Rough company for the real service, for minutes: `python -m tools.load --seconds 300`. Too long for the suite.

Simultaneous streams and jobs, of which clients leave, cancel, read slowly or send nonsense. What must hold is printed
and decides the exit code: no 5xx but a 503 with Retry-After, no lost job, memory and descriptors as before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.server import MODEL, NO_TLS, ServedProcess, serve

_TERMINAL = {"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"}
_GROWTH = 0.10  # of the resident memory
_NONSENSE: tuple[tuple[str, Any], ...] = (
    ("/v1/chat/completions", b"{"),
    ("/v1/chat/completions", {"model": MODEL}),
    ("/v1/chat/completions", {"model": "none", "messages": []}),
    ("/v1/completions", {"model": MODEL, "prompt": "x", "max_tokens": -1}),
    ("/v1/responses", {"model": MODEL, "input": 7}),
    ("/run", b"\xff"),
    ("/run", {"input": {"prompt": "x", "sampling_params": {"temperature": "hot"}}}),
    ("/runsync", {"inputs": {}}),
)


@dataclass
class Tally:
    """What clients saw."""

    answers: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    accepted: set[str] = field(default_factory=set)

    def note(self, what: str, response: httpx.Response) -> None:
        self.answers[f"{what} {response.status_code}"] += 1
        honest = response.status_code == 503 and "retry-after" in response.headers
        if (response.status_code >= 500 and not honest) or response.status_code == 422:
            self.faults.append(f"{what}: {response.status_code} {response.text[:200]}")


class Company:
    """The clients.

    Args:
        client: of the service.
        jobs: how many are submitted in all.
        ends: when they leave, by the clock of `time.monotonic`.
    """

    def __init__(self, client: httpx.AsyncClient, jobs: int, ends: float) -> None:
        self.tally = Tally()
        self._client = client
        self._jobs_left = jobs
        self._ends = ends

    async def streams(self) -> None:
        """One client that streams again and again, leaves some of its answers, and is slow with others."""
        while time.monotonic() < self._ends:
            body = {
                "model": MODEL,
                "messages": [{"role": "user", "content": "Write a short story about a robot."}],
                "max_tokens": random.randint(1, 120),  # noqa: S311
                "stream": True,
            }
            manner = random.choice(("reads", "reads", "leaves", "dawdles"))  # noqa: S311
            async with self._client.stream("POST", "/v1/chat/completions", json=body) as response:
                if response.status_code != 200:
                    await response.aread()
                self.tally.note("stream", response)
                if response.status_code == 200:
                    await self._read(response, manner)
            if response.status_code != 200:
                await asyncio.sleep(1)

    async def _read(self, response: httpx.Response, manner: str) -> None:
        last = ""
        async for line in response.aiter_lines():
            last = line or last
            if manner == "leaves" and random.random() < 0.1:  # noqa: S311
                return
            if manner == "dawdles":
                await asyncio.sleep(0.05)
        if last != "data: [DONE]":
            self.tally.faults.append(f"a stream ended with {last[:200]!r}")

    async def submits(self) -> None:
        """One client that submits jobs and cancels some of them."""
        while self._jobs_left > 0 and time.monotonic() < self._ends:
            self._jobs_left -= 1
            job = {"input": {"prompt": "The capital of France is", "sampling_params": {"max_tokens": 8}}}
            response = await self._client.post("/run", json=job)
            self.tally.note("run", response)
            if response.status_code != 200:
                self._jobs_left += 1
                await asyncio.sleep(1)
                continue
            job_id = response.json()["id"]
            self.tally.accepted.add(job_id)
            if random.random() < 0.1:  # noqa: S311
                self.tally.note("cancel", await self._client.post(f"/cancel/{job_id}"))

    async def babbles(self) -> None:
        """One client that sends nonsense."""
        while time.monotonic() < self._ends:
            path, body = random.choice(_NONSENSE)  # noqa: S311
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            headers = {"Content-Type": "application/json"}
            self.tally.note("nonsense", await self._client.post(path, content=content, headers=headers))
            await asyncio.sleep(0.5)

    async def lost(self) -> list[str]:
        """Accepted jobs that have no end."""
        states = [await self._end_of(job_id) for job_id in sorted(self.tally.accepted)]
        self.tally.answers.update(f"job {state}" for state in states)
        return [state for state in states if state not in _TERMINAL]

    async def _end_of(self, job_id: str) -> str:
        response = await self._client.get(f"/status-sync/{job_id}?wait=90000")
        return str(response.json().get("status", response.status_code))


@dataclass(frozen=True)
class Size:
    """What a service holds."""

    resident_mib: float
    descriptors: int

    @classmethod
    def of(cls, served: ServedProcess) -> Size:
        tree = served.tree()
        return cls(sum(p.memory_info().rss for p in tree) / 2**20, sum(p.num_fds() for p in tree))


async def run(served: ServedProcess, streams: int, jobs: int, seconds: float) -> bool:
    """Whether all held."""
    limits = httpx.Limits(max_connections=streams + 100)
    async with httpx.AsyncClient(base_url=served.url, timeout=300, limits=limits, verify=NO_TLS) as client:
        await _company(client, 50, 50, 20)  # what is only allocated once
        before = Size.of(served)
        company = await _company(client, streams, jobs, seconds)
        lost = await company.lost()
    await asyncio.sleep(10)  # connections end, memory is given back
    after = Size.of(served)
    for answer, count in sorted(company.tally.answers.items()):
        print(f"{count:7} {answer}")
    print(f"resident MiB {before.resident_mib:.0f} → {after.resident_mib:.0f}, ", end="")
    print(f"descriptors {before.descriptors} → {after.descriptors}, lost jobs {len(lost)}")
    for fault in company.tally.faults[:20]:
        print("fault:", fault)
    grown = after.resident_mib > before.resident_mib * (1 + _GROWTH) or after.descriptors > before.descriptors + 5
    return not (company.tally.faults or lost or grown)


async def _company(client: httpx.AsyncClient, streams: int, jobs: int, seconds: float) -> Company:
    company = Company(client, jobs, time.monotonic() + seconds)
    async with asyncio.TaskGroup() as group:
        for _ in range(streams):
            group.create_task(company.streams())
        for _ in range(8):
            group.create_task(company.submits())
        group.create_task(company.babbles())
    return company


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=300)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder), {"PROFILE": "demo"}) as served:
        served.wait_until_ready()
        held = asyncio.run(run(served, words.streams, words.jobs, words.seconds))
    print("all held" if held else "not all held")
    sys.exit(not held)


if __name__ == "__main__":
    main()
