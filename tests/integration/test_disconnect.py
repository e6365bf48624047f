"""A client that leaves frees its place in the engine, streamed or not.

The generations have thousands of tokens, so that they run for as many steps of the engine as a test never waits.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.server import MODEL, ServedProcess
from tests.waiting import HANG_S

pytestmark = pytest.mark.engine

LONGEST = 4000
ENDLESS = {"model": MODEL, "prompt": "Hello", "max_tokens": LONGEST, "ignore_eos": True}


async def counted(http: httpx.AsyncClient, metric: str) -> float:
    """The sum of a metric of vLLM."""
    text = (await http.get("/metrics")).text
    return sum(float(value) for value in re.findall(rf"^vllm:{metric}\{{[^}}]*\}} (\S+)$", text, re.MULTILINE))


async def running_requests(http: httpx.AsyncClient) -> float:
    """vLLM's own count of running and waiting requests."""
    return await counted(http, "num_requests_(?:running|waiting)")


async def generated_tokens(http: httpx.AsyncClient) -> float:
    """How many tokens vLLM has generated since its start."""
    return await counted(http, "generation_tokens_total")


async def wait_for_running(http: httpx.AsyncClient, count: int) -> None:
    """Waits until the engine runs exactly `count` requests."""
    async with asyncio.timeout(HANG_S):
        while await running_requests(http) != count:  # noqa: ASYNC110  # another process says so
            await asyncio.sleep(0.05)


async def wait_until_freed(http: httpx.AsyncClient, before: float, requests: int = 1) -> None:
    """Waits until the engine runs nothing, and asserts that it did not generate all that was asked for.

    Args:
        http: a client of the server.
        before: `generated_tokens` at the begin.
        requests: how many there were, of `LONGEST` tokens each.
    """
    await wait_for_running(http, 0)
    assert await generated_tokens(http) - before < requests * LONGEST


@pytest.fixture
async def http(server: ServedProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=HANG_S) as client:
        yield client


async def test_disconnect_mid_stream_frees_the_slot(http: httpx.AsyncClient) -> None:
    before = await generated_tokens(http)
    async with http.stream("POST", "/v1/completions", json={**ENDLESS, "stream": True}) as response:
        lines = response.aiter_lines()
        for _ in range(3):
            await anext(lines)
        await wait_for_running(http, 1)
    await wait_until_freed(http, before)


@pytest.mark.parametrize("path", ["/v1/completions", "/openai/v1/completions", "/v2/local/openai/v1/completions"])
async def test_disconnect_mid_wait_frees_the_slot(http: httpx.AsyncClient, path: str) -> None:
    before = await generated_tokens(http)
    request = asyncio.create_task(http.post(path, json=ENDLESS))
    await wait_for_running(http, 1)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    await wait_until_freed(http, before)


async def test_disconnect_of_a_chat_mid_wait_frees_the_slot(http: httpx.AsyncClient) -> None:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Hello"}],
        "ignore_eos": True,
        "max_tokens": LONGEST,
    }
    before = await generated_tokens(http)
    request = asyncio.create_task(http.post("/v1/chat/completions", json=body))
    await wait_for_running(http, 1)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    await wait_until_freed(http, before)
