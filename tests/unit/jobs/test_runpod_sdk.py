"""RunPod's own Python SDK, unchanged but for its base URL, against a server on the fake engine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette

from gptoss_bento.bench.servers import free_port
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.jobs.api.routes import NativeRoutes
from gptoss_bento.jobs.fake_engine import FakeEngine
from gptoss_bento.jobs.runner import Runner, running_jobs
from tests.waiting import HANG_S

runpod = pytest.importorskip("runpod", reason="RunPod's SDK is not installed")

PROMPT = {"prompt": "one two three", "sampling_params": {"max_tokens": 5}}


@pytest.fixture(scope="module")
def fake() -> FakeEngine:
    return FakeEngine(delay_s=0.002)


@pytest.fixture(scope="module")
def url(fake: FakeEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    runners: list[Runner] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with running_jobs(ServerSettings(), Path(tmp_path_factory.mktemp("jobs")) / "jobs.sqlite3") as runner:
            runner.attach(fake.engine())
            runners.append(runner)
            yield

    app = Starlette(routes=[NativeRoutes(lambda: runners[0])], lifespan=lifespan)
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        threading.Event().wait(0.01)
    yield f"http://127.0.0.1:{port}/v2"
    server.should_exit = True
    thread.join(HANG_S)


@pytest.fixture
def endpoint(url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(runpod, "endpoint_url_base", url)
    monkeypatch.setattr(runpod, "api_key", "key")
    return runpod.Endpoint("local")


def test_run_status_output(endpoint: Any) -> None:
    job = endpoint.run({"input": PROMPT})

    assert job.output(timeout=HANG_S)[0]["choices"][0]["tokens"] == [" one two three one two"]
    assert job.status() == "COMPLETED"


def test_run_sync(endpoint: Any) -> None:
    assert endpoint.run_sync(PROMPT, timeout=HANG_S)[0]["usage"]["output"] == 5


def test_falsy_input_is_wrapped_once_more_and_fails(endpoint: Any) -> None:
    job = endpoint.run({"input": {}})
    while job.status() not in ("FAILED", "COMPLETED"):
        pass

    assert job.status() == "FAILED"


def test_stream(endpoint: Any) -> None:
    job = endpoint.run({"input": {**PROMPT, "stream": True, "sampling_params": {"max_tokens": 40}}})
    items = list(job.stream())

    assert [len(item["choices"][0]["tokens"]) for item in items] == [1, 3, 9, 27]


def test_stream_of_a_failed_job_ends_with_its_error(endpoint: Any) -> None:
    job = endpoint.run({"input": {**PROMPT, "stream": True, "sampling_params": {"temperature": 5}}})

    assert list(job.stream()) == [{"error": "temperature must be a number from 0 to 2, got 5."}]
    assert job.status() == "FAILED"


def test_cancel_purge_health(endpoint: Any, fake: FakeEngine) -> None:
    fake.gate.clear()
    job = endpoint.run({"input": PROMPT})
    assert job.cancel()["status"] == "CANCELLED"
    assert job.status() == "CANCELLED"
    fake.gate.set()

    assert endpoint.purge_queue()["status"] == "completed"
    assert endpoint.health()["workers"]["ready"] == 1


async def test_asyncio(endpoint: Any) -> None:
    import aiohttp
    from runpod import AsyncioEndpoint, http_client

    assert endpoint
    async with aiohttp.ClientSession() as session:
        job = await AsyncioEndpoint("local", session).run(PROMPT)
        assert (await job.output(timeout=HANG_S))[0]["usage"]["output"] == 5
        assert await job.status() == "COMPLETED"
        streamed = await AsyncioEndpoint("local", session).run({**PROMPT, "stream": True})
        assert [item async for item in streamed.stream()]
        assert await AsyncioEndpoint("local", session).health()
    assert http_client
    await asyncio.sleep(0)
