from __future__ import annotations

import asyncio

import httpx
import pytest
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from gptoss_bento.http.shutdown_gate import ShutdownGate
from gptoss_bento.workers.graceful_shutdown import GracefulShutdown
from tests.fakes import FakeEngineApp, asgi_client


class Stopping(GracefulShutdown):
    begun = True


async def ask(shutdown: GracefulShutdown, method: str, path: str) -> httpx.Response:
    async with asgi_client(ShutdownGate(FakeEngineApp(), shutdown)) as client:
        return await client.request(method, path)


WORK = ["/v1/chat/completions", "/v2/local/openai/v1/completions", "/run", "/v2/local/runsync", "/retry/x", "/generate"]
QUESTIONS = [
    ("GET", "/v1/models"),
    ("GET", "/v2/local/status/x"),
    ("POST", "/status/x"),
    ("POST", "/stream/x"),
    ("POST", "/cancel/x"),
    ("POST", "/purge-queue"),
    ("GET", "/health"),
    ("GET", "/metrics"),
]


@pytest.mark.parametrize("path", WORK)
async def test_shutdown_refuses_new_requests(path: str) -> None:
    response = await ask(Stopping(), "POST", path)

    assert response.status_code == 503
    assert response.headers["connection"] == "close"
    assert int(response.headers["retry-after"]) > 0
    assert isinstance(response.json()["error"], dict if "/v1/" in path else str)


@pytest.mark.parametrize("path", WORK)
async def test_running_service_takes_requests(path: str) -> None:
    assert (await ask(GracefulShutdown(), "POST", path)).status_code == 200


@pytest.mark.parametrize(("method", "path"), QUESTIONS)
async def test_shutdown_still_answers_requests_without_generation(method: str, path: str) -> None:
    assert (await ask(Stopping(), method, path)).status_code == 200


@pytest.mark.parametrize(("path", "counted"), [("/v1/responses", 1), ("/runsync", 0)])
async def test_requests_count_while_the_engine_works_for_them(path: str, counted: int) -> None:
    shutdown, working, go_on = GracefulShutdown(), asyncio.Event(), asyncio.Event()

    async def work(scope: Scope, receive: Receive, send: Send) -> None:
        working.set()
        await go_on.wait()
        await JSONResponse({})(scope, receive, send)

    async with asgi_client(ShutdownGate(work, shutdown)) as client:
        task = asyncio.create_task(client.post(path))
        await working.wait()
        assert shutdown.in_flight == counted
        go_on.set()
        await task
    assert shutdown.in_flight == 0
