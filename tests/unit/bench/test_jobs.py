from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gptoss_bento.bench.jobs import (
    QUEUED,
    QUEUEING,
    Latency,
    Measured,
    Overhead,
    Queue,
    Row,
    Shape,
    job_api,
    latencies,
    measure,
    notes,
    overhead,
    rows,
)
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.errors import ConfigurationError
from gptoss_bento.jobs.fake_engine import MODEL, FakeEngine
from tests.fakes import Calls
from tests.job_server import job_app
from tests.server import NO_TLS

SMALL = Shape(pairs=3, jobs=20, clients=4, rounds=5)
MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


@contextmanager
def served(app: Starlette) -> Iterator[str]:
    """The application on a free port, in a thread. Gives the URL of its OpenAI API."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server ended"
            time.sleep(0.005)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def job_server(fake: FakeEngine, folder: Path, **settings: Any) -> Iterator[str]:
    store = f"sqlite:///{folder / 'jobs.sqlite3'}"
    with served(job_app(fake, ServerSettings(job_store_url=store, **settings))) as url:
        yield url


def counts(url: str) -> dict[str, int]:
    return dict(httpx.get(f"{job_api(url)}/health", verify=NO_TLS).json()["jobs"])


# against a server


def test_jobs_are_measured_and_the_queue_is_purged(tmp_path: Path) -> None:
    fake = FakeEngine(delay_s=0.005)
    report = Calls()
    with job_server(fake, tmp_path, max_concurrency=2) as url:
        found = measure(f"{url}/", None, SMALL, None, report)
        left = counts(url)

    assert found.server == url
    assert found.overhead.pairs == 3
    assert 0 < found.overhead.chat_median_ms < 1000
    assert 0 < found.overhead.job_median_ms < 1000
    assert [(each.route, each.stage) for each in found.latencies] == [
        *(("/run", QUEUEING), ("/status", QUEUEING), ("/health", QUEUEING)),
        *(("/run", QUEUED), ("/status", QUEUED), ("/health", QUEUED)),
    ]
    assert all(0 < each.median_ms <= each.p99_ms for each in found.latencies)
    assert [each.requests for each in found.latencies if each.route == "/run"] == [20, 5]
    queue = found.queue
    assert queue.jobs == 25 == queue.completed + queue.running + queue.waiting
    assert queue.running == 2
    assert 0 < queue.purged <= queue.waiting
    assert (left["inQueue"], left["inProgress"]) == (0, 0)
    assert report.made == [("3 pairs of a chat request and the same job",), ("20 jobs from 4 clients",)]


def test_chat_request_and_job_ask_the_engine_for_the_same(tmp_path: Path) -> None:
    fake = FakeEngine()
    with job_server(fake, tmp_path) as url:
        measure(url, None, SMALL, None, Calls())

    chats = [body for body in fake.requests if "messages" in body]
    assert len(chats) == 2 * (3 + 3)
    for body in chats:
        unlike = ("model", "return_token_ids")  # a job names its model, and counts by token ids
        assert {name: value for name, value in body.items() if name not in unlike} == {
            "messages": MESSAGES,
            "max_tokens": 8,
            "temperature": 0,
        }
    assert {body["model"] for body in chats if "model" in body} == {MODEL}


def test_queued_jobs_are_long_streams_of_different_prompts(tmp_path: Path) -> None:
    fake = FakeEngine(delay_s=0.0)
    with job_server(fake, tmp_path) as url:
        measure(url, None, SMALL, None, Calls())

    bodies = [body for body in fake.requests if "prompt" in body]
    assert bodies
    for body in bodies:
        assert body.items() >= {"max_tokens": 64, "ignore_eos": True, "temperature": 0, "stream": True}.items()
    assert len({body["prompt"].split()[0] for body in bodies}) == len(bodies)


def test_server_with_jobs_is_left_alone(tmp_path: Path) -> None:
    fake = FakeEngine()
    fake.gate.clear()
    with job_server(fake, tmp_path, max_concurrency=1) as url:
        for _ in range(3):
            httpx.post(f"{job_api(url)}/run", json={"input": {"prompt": "somebody else's"}}, verify=NO_TLS)
        with pytest.raises(ConfigurationError, match=r"jobs wait and . run on this server"):
            measure(url, None, SMALL, None, Calls())
        left = counts(url)

    assert left["inQueue"] + left["inProgress"] == 3


def test_full_queue_ends_the_measurement_with_the_servers_reason_and_is_purged(tmp_path: Path) -> None:
    fake = FakeEngine(delay_s=0.005)
    with job_server(fake, tmp_path, max_concurrency=1, max_queue_size=4) as url:
        with pytest.raises(httpx.HTTPStatusError, match=r"POST /run answered 429: .*4"):
            measure(url, None, SMALL, None, Calls())
        assert counts(url)["inQueue"] == 0


def test_unknown_model_is_refused_with_the_engines_message(tmp_path: Path) -> None:
    with job_server(FakeEngine(), tmp_path) as url, pytest.raises(httpx.HTTPStatusError) as caught:
        measure(url, "other", SMALL, None, Calls())

    assert str(caught.value) == "POST /v1/chat/completions answered 404: The model `other` does not exist."


# against servers that are something else


def other_server(*, health: Response | None = None, runsync: Response | None = None) -> Starlette:
    """Answers with the given responses, and wants a key."""

    async def answer(request: Request) -> Response:
        if request.headers.get("authorization") != "Bearer k":
            return JSONResponse({"error": "A valid key is needed."}, 401)
        answers = {"/health": health, "/runsync": runsync, "/v1/models": JSONResponse({"data": [{"id": "m"}]})}
        return answers.get(request.url.path) or JSONResponse({})

    return Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])


IDLE = JSONResponse({"jobs": {"completed": 0, "inProgress": 0, "inQueue": 0}})


@pytest.mark.parametrize(
    ("app", "key", "error"),
    [
        (other_server(health=IDLE), None, "GET /health answered 401: A valid key is needed."),
        (other_server(health=Response()), "k", "GET /health answered '', which is no JSON object."),
        (other_server(health=JSONResponse([])), "k", "GET /health answered '[]', which is no JSON object."),
        (other_server(health=Response("gone", 502)), "k", "GET /health answered 502: gone"),
        (other_server(), "k", "GET /health has no numbers of jobs; the server has no job API."),
        (
            other_server(health=IDLE, runsync=JSONResponse({"status": "FAILED", "error": "no such thing"})),
            "k",
            "A job of /runsync is FAILED: no such thing",
        ),
        (other_server(health=IDLE, runsync=JSONResponse({"status": "IN_QUEUE"})), "k", "is IN_QUEUE: no error"),
    ],
)
def test_server_that_answers_otherwise_is_one_clear_error(app: Starlette, key: str | None, error: str) -> None:
    with served(app) as url, pytest.raises(httpx.HTTPError) as caught:
        measure(url, None, SMALL, key, Calls())

    assert error in str(caught.value)
    assert "\n" not in str(caught.value)


def test_server_without_models_is_one_clear_error() -> None:
    app = Starlette(
        routes=[Route("/health", lambda _: IDLE), Route("/v1/models", lambda _: JSONResponse({"data": []}))]
    )
    with served(app) as url, pytest.raises(httpx.HTTPError, match="lists no model"):
        measure(url, None, SMALL, None, Calls())


# pure


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://h:3000/v1", "http://h:3000"),
        ("http://h/openai/v1", "http://h"),
        ("https://h/v2/abc/openai/v1", "https://h/v2/abc"),
    ],
)
def test_job_api_is_beside_openais(url: str, base: str) -> None:
    assert job_api(url) == base


def test_overhead_is_the_median_of_the_differences_not_the_difference_of_the_medians() -> None:
    found = overhead([10.0, 20.0, 90.0], [13.0, 100.0, 95.0])

    assert found == Overhead(3, chat_median_ms=20.0, job_median_ms=95.0, difference_median_ms=5.0)


def test_times_become_medians_and_percentiles_by_route() -> None:
    found = list(latencies(QUEUED, {"/run": [float(number) for number in range(101)], "/health": [7.0]}))

    assert found == [Latency("/run", QUEUED, 101, 50.0, 99.0), Latency("/health", QUEUED, 1, 7.0, 7.0)]


def measured(waiting: int) -> Measured:
    return Measured(
        "http://there/v1",
        Overhead(50, 100.0, 109.0, 8.5),
        (Latency("/run", QUEUEING, 1000, 4.0, 9.0), Latency("/run", QUEUED, 300, 5.0, 11.0)),
        Queue(jobs=1300, completed=1270 - waiting, running=30, waiting=waiting, purged=waiting),
    )


def test_table_holds_medians_and_percentiles() -> None:
    assert rows(measured(1000)) == [
        Row("chat request", 100.0),
        Row("the same as a job", 109.0),
        Row("job − chat request", 8.5),
        Row("/run while jobs are queued", 4.0, 9.0),
        Row("/run with the queue full", 5.0, 11.0),
    ]


def test_notes_count_how_the_jobs_ended() -> None:
    (note,) = notes(measured(1000))

    assert note == "Of 1,300 jobs, 270 had ended, 30 ran and 1,000 waited at the end; 1,000 were purged."


def test_queue_that_ran_empty_is_a_warning() -> None:
    assert notes(measured(0))[1].startswith("warning: no job waited any more")
