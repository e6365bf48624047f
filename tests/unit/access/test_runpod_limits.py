"""RunPod's published limits."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from gptoss_bento.access.admission import PLATFORM_RULES, Admission
from gptoss_bento.access.runpod_limits import RunPodLimits, operation
from tests.fakes import asgi_client
from tests.unit.http.test_openai_dispatch import is_openai_error
from tests.waiting import until


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/run", "run"),
        ("/v2/local/runsync", "runsync"),
        ("/generate", "runsync"),
        ("/v2/local/status/abc-u1", "status"),
        ("/status-sync/abc-u1", "status-sync"),
        ("/stream/abc", "stream"),
        ("/v2/a/cancel/abc", "cancel"),
        ("/v2/a/purge-queue", "purge-queue"),
        ("/v1/chat/completions", "openai"),
        ("/openai/v1/models", "openai"),
        ("/v2/a/openai/v1/completions", "openai"),
        ("/health", "health"),
        ("/livez", "livez"),
        ("/", ""),
        ("/v2/a/run/b/c", ""),
    ],
)
def test_paths_map_to_operations(path: str, expected: str) -> None:
    assert operation(path) == expected


def test_rate_limits_are_those_that_runpod_publishes() -> None:
    limits = {name: (rule.requests and rule.requests.limit, rule.concurrent) for name, rule in PLATFORM_RULES.items()}

    assert limits == {
        "runsync": (2000, 400),
        "run": (1000, 200),
        "status": (2000, 400),
        "status-sync": (2000, 400),
        "stream": (2000, 400),
        "cancel": (100, 20),
        "purge-queue": (2, None),
        "openai": (2000, 400),
    }
    assert {rule.requests.period_s for rule in PLATFORM_RULES.values() if rule.requests} == {10}


def app_of(inner: ASGIApp) -> RunPodLimits:
    return RunPodLimits(inner, Admission(clock=lambda: 1.0))


async def test_rate_limit_of_runpod_answers_429_in_the_job_apis_shape() -> None:
    async with asgi_client(app_of(PlainTextResponse("through"))) as client:
        answers = [await client.post("/v2/local/purge-queue") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json() == {"error": "Calls of purge-queue may make 2 requests in 10 s. Try again later."}
    assert answers[2].headers["retry-after"] == "5"


async def test_concurrency_limit_of_runpod_answers_in_openais_shape_on_its_routes() -> None:
    gate = asyncio.Event()
    inside = 0

    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal inside
        inside += 1
        await gate.wait()
        await PlainTextResponse("through")(scope, receive, send)

    async with asgi_client(app_of(waiting)) as client:
        running = [asyncio.create_task(client.post("/cancel/a")) for _ in range(20)]
        chats = [asyncio.create_task(client.get("/v1/models")) for _ in range(400)]
        await until(lambda: inside == 420)
        job, chat = await client.post("/cancel/a"), await client.get("/v1/models")
        gate.set()
        answers: list[httpx.Response] = await asyncio.gather(*running, *chats)

    assert job.status_code == 429
    assert is_openai_error(chat, 429, "Calls of openai may have 400 concurrent requests")
    assert {answer.status_code for answer in answers} == {200}
