"""A client that leaves frees its place in the engine within a second, streamed or not."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.server import MODEL, ServedProcess

pytestmark = pytest.mark.engine

ENDLESS = {"model": MODEL, "prompt": "Hello", "max_tokens": 4000, "ignore_eos": True}


async def running_requests(http: httpx.AsyncClient) -> float:
    """vLLM's own count of running and waiting requests."""
    text = (await http.get("/metrics")).text
    return sum(
        float(v) for v in re.findall(r"^vllm:num_requests_(?:running|waiting)\{[^}]*\} (\S+)$", text, re.MULTILINE)
    )


async def wait_for_running(http: httpx.AsyncClient, count: int, timeout_s: float) -> float:
    """Seconds until the engine runs exactly `count` requests."""
    started = time.monotonic()
    while await running_requests(http) != count:
        assert time.monotonic() - started < timeout_s, f"{await running_requests(http)} requests, expected {count}"
        await asyncio.sleep(0.05)
    return time.monotonic() - started


@pytest.fixture
async def http(server: ServedProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        yield client


async def test_client_that_leaves_mid_stream_frees_its_slot(http: httpx.AsyncClient) -> None:
    async with http.stream("POST", "/v1/completions", json={**ENDLESS, "stream": True}) as response:
        lines = response.aiter_lines()
        for _ in range(3):
            await anext(lines)
        await wait_for_running(http, 1, timeout_s=10)
    await wait_for_running(http, 0, timeout_s=1.5)


@pytest.mark.parametrize("path", ["/v1/completions", "/openai/v1/completions", "/v2/local/openai/v1/completions"])
async def test_client_that_leaves_mid_wait_frees_its_slot(http: httpx.AsyncClient, path: str) -> None:
    request = asyncio.create_task(http.post(path, json=ENDLESS))
    await wait_for_running(http, 1, timeout_s=10)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    await wait_for_running(http, 0, timeout_s=1.5)


async def test_chat_client_that_leaves_mid_wait_frees_its_slot(http: httpx.AsyncClient) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "ignore_eos": True, "max_tokens": 4000}
    request = asyncio.create_task(http.post("/v1/chat/completions", json=body))
    await wait_for_running(http, 1, timeout_s=10)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    await wait_for_running(http, 0, timeout_s=1.5)
