"""How much is fuzzed, with what, and that it leaves nothing behind. `FUZZ_EXAMPLES` says how many requests each test
tries; beyond a thousand in rounds, because Hypothesis remembers all that it has tried until a test ends.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

import psutil
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp, Message, Scope

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "100"))
_OF_A_ROUND = 1000
ROUNDS = max(1, EXAMPLES // _OF_A_ROUND)
FUZZ = settings(
    max_examples=min(EXAMPLES, _OF_A_ROUND), deadline=None, suppress_health_check=list(HealthCheck), database=None
)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()  # with NaN and Infinity, which json.dumps writes though JSON has neither
    | st.text(st.characters(codec=None), max_size=8)
    | st.sampled_from([10**400, -1, 2**63, "http://127.0.0.1/", "/v1/models", "/v1/chat/completions"])
)

_GROWTH = 1.1
_AT_WORK = 8  # connections of a pool that are opened when they are needed, deliveries that are under way


@dataclass(frozen=True)
class _Held:
    """What this process holds."""

    memory_bytes: int
    files: int
    tasks: int


def _held() -> _Held:
    gc.collect()
    process = psutil.Process()
    return _Held(process.memory_info().rss, process.num_fds(), len(asyncio.all_tasks()))


async def exchanged(app: ASGIApp, scope: Scope, body: bytes, *, leaves: bool = False) -> list[Message]:
    """What is sent to a client, called as an ASGI server calls, so that no client tidies up first.

    The body comes in two pieces; a client that `leaves` does so before the second.
    """
    pieces = [(body[:7], True), (body[7:], False)][: 1 if leaves else 2]
    received = iter([{"type": "http.request", "body": piece, "more_body": more} for piece, more in pieces])
    sent: list[Message] = []

    async def receive() -> Message:
        return next(received, {"type": "http.disconnect"})

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


_after_first_rounds: dict[str, _Held] = {}


@pytest.fixture(params=range(ROUNDS), autouse=True)
async def fuzz_round(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """One of the rounds of each test of a module that imports this; the last must hold no more than the first did."""
    yield
    test = request.function.__name__
    now = _held()
    first = _after_first_rounds.setdefault(test, now)
    if request.param == ROUNDS - 1 > 0:
        print(f"\n{test}: {EXAMPLES} examples; after the first round {first}, after the last {now}")
        assert now.tasks <= first.tasks + _AT_WORK
        assert now.files <= first.files + _AT_WORK
        assert now.memory_bytes < first.memory_bytes * _GROWTH
