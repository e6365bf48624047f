"""The job API over HTTP, as a client sees it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from gptoss_bento.access.admission import Admission
from gptoss_bento.access.authentication import Authentication
from gptoss_bento.access.key_store import KeyStore
from gptoss_bento.config.api_keys import read_keys
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.http.errors import not_found
from gptoss_bento.jobs.api.routes import NativeRoutes, is_native_path
from gptoss_bento.jobs.fake_engine import FakeEngine
from gptoss_bento.jobs.limits import JobLimits
from gptoss_bento.jobs.runner import Runner, running_jobs
from gptoss_bento.state.database import StoreUnavailableError
from tests.fakes import asgi_client
from tests.waiting import HANG_S

PROMPT = {"input": {"prompt": "one two three", "sampling_params": {"max_tokens": 2}}}
SMALL = ServerSettings(max_run_body_bytes=1000, max_runsync_body_bytes=2000, max_queue_size=3)


@pytest.fixture
def fake() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def jobs(fake: FakeEngine, tmp_path: Path) -> AsyncIterator[Runner]:
    async with running_jobs(SMALL, tmp_path / "jobs.sqlite3") as runner:
        runner.attach(fake.engine())
        yield runner


@pytest.fixture
async def client(jobs: Runner) -> AsyncIterator[httpx.AsyncClient]:
    async with asgi_client(Starlette(routes=[NativeRoutes(lambda: jobs)])) as opened:
        yield opened


async def completed(client: httpx.AsyncClient) -> str:
    response = await client.post("/runsync", json=PROMPT)
    assert response.json()["status"] == "COMPLETED"
    return str(response.json()["id"])


def assert_error(response: httpx.Response, status: int, *words: str) -> None:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["error"]
    assert isinstance(body["error"], str)
    for word in words:
        assert word in body["error"]


# the way of a job


@pytest.mark.parametrize("prefix", ["", "/v2/local", "/v2/any_id-1"])
async def test_job_from_run_to_status(client: httpx.AsyncClient, prefix: str) -> None:
    accepted = await client.post(f"{prefix}/run", json=PROMPT)
    assert accepted.status_code == 200
    job_id = accepted.json()["id"]
    assert accepted.json() == {"id": job_id, "status": "IN_QUEUE"}
    assert job_id.endswith("-u1")

    done = (await client.post(f"{prefix}/status-sync/{job_id}")).json()
    assert done == {**done, "id": job_id, "status": "COMPLETED"}
    assert done["output"][0]["choices"][0]["tokens"] == [" one two"]
    assert {type(done[name]) for name in ("delayTime", "executionTime")} == {int}
    assert isinstance(done["workerId"], str)
    assert (await client.get(f"/status/{job_id}")).json() == done


async def test_runsync_waits_for_the_end(client: httpx.AsyncClient) -> None:
    response = await client.post("/runsync", json=PROMPT)

    assert response.status_code == 200
    assert response.json()["id"].startswith("sync-")
    assert response.json()["output"][0]["usage"]["output"] == 2


async def test_runsync_that_times_out_continues_as_a_job(client: httpx.AsyncClient, fake: FakeEngine) -> None:
    fake.gate.clear()
    response = await client.post("/runsync?wait=1", json=PROMPT)
    assert response.status_code == 200
    assert response.json()["status"] == "IN_PROGRESS"
    fake.gate.set()
    done = await client.get(f"/status-sync/{response.json()['id']}?wait=5000")
    assert done.json()["status"] == "COMPLETED"


async def test_wrong_input_is_a_failed_job_and_no_http_error(client: httpx.AsyncClient) -> None:
    response = await client.post("/runsync", json={"input": {"input": {}}})

    assert response.status_code == 200
    assert response.json()["status"] == "FAILED"
    assert "messages" in response.json()["error"]
    assert "output" not in response.json()


async def test_stream_is_consumed(client: httpx.AsyncClient) -> None:
    given_ = {"prompt": "x", "stream": True, "sampling_params": {"max_tokens": 6}}
    job_id = (await client.post("/run", json={"input": given_})).json()["id"]
    await client.get(f"/status-sync/{job_id}")
    first = (await client.get(f"/stream/{job_id}")).json()

    assert first["status"] == "COMPLETED"
    assert [item["output"]["usage"]["output"] for item in first["stream"]] == [1, 4, 6]
    assert (await client.post(f"/stream/{job_id}", json={})).json() == {"status": "COMPLETED", "stream": []}
    assert len((await client.get(f"/status/{job_id}")).json()["output"]) == 3


async def test_failed_stream_reports_the_reason(client: httpx.AsyncClient) -> None:
    job_id = (await client.post("/runsync", json={"input": {}})).json()["id"]
    body = (await client.get(f"/stream/{job_id}")).json()

    assert body["status"] == "FAILED"
    assert "prompt" in body["error"]
    assert body["stream"] == [{"output": {"error": body["error"]}}]
    assert (await client.get(f"/stream/{job_id}")).json()["stream"] == []


async def test_stream_poll_is_held_for_a_second_at_most(client: httpx.AsyncClient, fake: FakeEngine) -> None:
    fake.gate.clear()
    job_id = (await client.post("/run", json=PROMPT)).json()["id"]
    async with asyncio.timeout(HANG_S):
        assert (await client.get(f"/stream/{job_id}")).json()["stream"] == []
    async with asyncio.timeout(HANG_S):
        assert (await client.get(f"/stream/{job_id}?wait=0")).json()["status"] == "IN_PROGRESS"
    fake.gate.set()
    async with asyncio.timeout(HANG_S):
        assert len((await client.get(f"/stream/{job_id}?wait=90000")).json()["stream"]) == 1


async def test_cancel(client: httpx.AsyncClient, fake: FakeEngine) -> None:
    fake.gate.clear()
    job_id = (await client.post("/run", json=PROMPT)).json()["id"]

    assert (await client.post(f"/cancel/{job_id}")).json() == {"id": job_id, "status": "CANCELLED"}
    assert (await client.get(f"/status/{job_id}")).json()["status"] == "CANCELLED"
    fake.gate.set()
    done = await completed(client)
    assert (await client.post(f"/cancel/{done}")).json() == {"id": done, "status": "COMPLETED"}


async def test_retry(client: httpx.AsyncClient) -> None:
    failed = (await client.post("/runsync", json={"input": {}})).json()["id"]
    again = await client.post(f"/retry/{failed}")
    assert (again.status_code, again.json()) == (200, {"id": failed, "status": "IN_QUEUE"})
    assert (await client.get(f"/status-sync/{failed}")).json()["retries"] == 1

    done = await completed(client)
    assert_error(await client.post(f"/retry/{done}"), 400, "FAILED", "TIMED_OUT", "COMPLETED")


async def test_purge_and_a_full_queue(client: httpx.AsyncClient, jobs: Runner) -> None:
    jobs.detach()
    for _ in range(3):
        assert (await client.post("/run", json=PROMPT)).status_code == 200
    full = await client.post("/run", json=PROMPT)
    assert_error(full, 429, "3")
    assert int(full.headers["retry-after"]) > 0

    assert (await client.post("/purge-queue")).json() == {"removed": 3, "status": "completed"}
    assert (await client.post("/purge-queue", json={})).json() == {"removed": 0, "status": "completed"}


KEYS = """
alice: {key: alices, requests_per_minute: 5, tokens_per_minute: 1000, jobs: 2}
bob: {key: bobs}
"""


@pytest.fixture
async def with_key(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client whose key has limits. Nothing runs yet."""
    ring = KeyStore(read_keys(KEYS))
    limits = JobLimits(ring, Admission(clock=lambda: 1.0))
    async with running_jobs(SMALL, tmp_path / "keyed.sqlite3", limits=limits) as runner:
        app = Authentication(Starlette(routes=[NativeRoutes(lambda: runner)]), ring)
        async with asgi_client(app) as opened:
            opened.headers["Authorization"] = "alices"
            yield opened


def rates(response: httpx.Response) -> tuple[str, ...]:
    """What is left of requests and tokens."""
    names = [name for name in response.headers if name.startswith("x-ratelimit-")]
    assert len(names) in (0, 6)
    return tuple(response.headers[name] for name in names if "remaining" in name)


async def test_rate_limit_headers_of_a_key_are_in_the_answers(with_key: httpx.AsyncClient) -> None:
    first = await with_key.post("/run", json=PROMPT)
    assert (first.status_code, rates(first)) == (200, ("4", "1000"))
    waited = await with_key.post("/runsync?wait=1000", json=PROMPT)
    assert (waited.status_code, rates(waited)) == (200, ("3", "1000"))
    assert rates(await with_key.get(f"/status/{first.json()['id']}")) == (), "not a request that counts"
    missing = await with_key.post("/retry/unknown")
    assert (missing.status_code, rates(missing)) == (404, ("2", "1000"))
    assert rates(await with_key.post("/run", json=PROMPT, headers={"Authorization": "bobs"})) == ()


async def test_rate_limit_does_not_count_a_job_without_room(with_key: httpx.AsyncClient) -> None:
    for _ in range(2):
        await with_key.post("/run", json=PROMPT)
    for _ in range(9):
        crowded = await with_key.post("/run", json=PROMPT)
        assert_error(crowded, 429, "This key may have 2 unfinished jobs")
        assert rates(crowded) == ("3", "1000")
        assert int(crowded.headers["retry-after"]) > 0
    assert_error(wrong := await with_key.post("/run", json={"input": 5}), 400, "input")
    assert rates(wrong) == (), "it was refused before anything was counted"
    await with_key.post("/run", json=PROMPT, headers={"Authorization": "bobs"})
    full = await with_key.post("/runsync", json=PROMPT)
    assert_error(full, 429, "3 jobs wait")
    assert rates(full) == ("3", "1000")


async def test_rate_limit_that_is_used_up_is_refused_with_retry_after(with_key: httpx.AsyncClient) -> None:
    for _ in range(5):
        await with_key.post("/retry/unknown")
    refused = await with_key.post("/run", json=PROMPT)
    assert_error(refused, 429, "5 requests in 60 s")
    assert (rates(refused), refused.headers["retry-after"]) == (("0", "1000"), "12")


async def test_health(client: httpx.AsyncClient) -> None:
    body = (await client.get("/v2/local/health")).json()

    assert body["jobs"] == {"completed": 0, "failed": 0, "inProgress": 0, "inQueue": 0, "retried": 0}
    assert body["workers"]["ready"] == 1


async def test_health_reports_what_is_wrong_with_the_engine(jobs: Runner) -> None:
    trouble = {"status": "failed", "cause_kind": "out of GPU memory", "log": ["CUDA out of memory"]}
    async with asgi_client(Starlette(routes=[NativeRoutes(lambda: jobs, (), lambda: trouble)])) as client:
        response = await client.get("/health")

    assert response.status_code == 200
    assert response.json()["engine"] == trouble
    assert {"jobs", "workers"} <= response.json().keys()


async def test_ttl_shortens_the_life_of_a_result(client: httpx.AsyncClient) -> None:
    job_id = await completed(client)

    assert (await client.get(f"/status/{job_id}?ttl=1")).status_code == 200
    await asyncio.sleep(0.01)
    assert_error(await client.get(f"/status/{job_id}"), 404, job_id)


# what the SDKs send


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "nonsense", None])
async def test_routes_without_input_take_any_body(client: httpx.AsyncClient, kind: str | None) -> None:
    job_id = await completed(client)
    headers = {"X-Request-ID": job_id} | ({"Content-Type": kind} if kind else {})
    for content in (None, b"", b"{}", b"null", b"nonsense"):
        for method, path in [
            ("POST", f"/status/{job_id}"),
            ("GET", f"/status/{job_id}"),
            ("POST", f"/status-sync/{job_id}"),
            ("POST", f"/stream/{job_id}?wait=0"),
            ("POST", f"/cancel/{job_id}"),
            ("POST", "/purge-queue"),
            ("GET", "/health"),
        ]:
            response = await client.request(method, path, content=content, headers=headers)
            assert response.status_code == 200, (path, content)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", None])
async def test_json_is_read_whatever_its_content_type(client: httpx.AsyncClient, kind: str | None) -> None:
    headers = {"Content-Type": kind} if kind is not None else {}
    response = await client.post("/run", content=json.dumps(PROMPT), headers=headers)

    assert response.status_code == 200


async def test_bodies_are_all_one_line(client: httpx.AsyncClient, fake: FakeEngine) -> None:
    fake.answer = [b"line\n", b"line\r\n", b"\xe2\x80\xa8"]
    text = (await client.post("/runsync", json={"input": {"prompt": "x"}})).text

    assert "\n" not in text
    assert "\r" not in text


# errors


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/run", "POST"),
        ("/runsync", "POST"),
        ("/purge-queue", "POST"),
        ("/cancel/x", "POST"),
        ("/retry/x", "POST"),
        ("/status/x", "GET, POST"),
        ("/status-sync/x", "GET, POST"),
        ("/v2/local/stream/x", "GET, POST"),
        ("/health", "GET"),
    ],
)
async def test_wrong_method_is_answered_with_the_right_one(client: httpx.AsyncClient, path: str, allowed: str) -> None:
    response = await client.put(path)

    assert_error(response, 405, "PUT", allowed)
    assert response.headers["allow"] == allowed


@pytest.mark.parametrize(
    "path",
    [
        "/status",
        "/status/",
        "/run/x",
        "/run/",
        "/v2/local",
        "/v2/local/",
        "/v2/local/unknown",
        "/v2//run",
        "/v2/a%20b/run",
        "/v2/" + "a" * 65 + "/run",
        "/v2/local/status/x/y",
        "/v2/local/v2/local/run",
    ],
)
async def test_unknown_route_is_not_found(client: httpx.AsyncClient, path: str) -> None:
    assert_error(await client.post(path, json=PROMPT) if not path.endswith("status") else await client.get(path), 404)


@pytest.mark.parametrize("route", ["status", "status-sync", "stream", "cancel", "retry"])
async def test_unknown_job_is_not_found(client: httpx.AsyncClient, route: str) -> None:
    for job_id in ["unknown", "%00", "a%00b", "é", "%ff", "a" * 200, "a%20b", "'--", "%F0%9F%98%80"]:
        assert_error(await client.post(f"/{route}/{job_id}"), 404, "There is no job")


async def test_endpoint_ids_are_refused_unless_named(jobs: Runner) -> None:
    async with asgi_client(Starlette(routes=[NativeRoutes(lambda: jobs, {"mine"})])) as client:
        assert (await client.get("/v2/mine/health")).status_code == 200
        assert (await client.get("/health")).status_code == 200
        assert_error(await client.get("/v2/other/health"), 404)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"prompt": "Hi"}, "'input' is required and must be a JSON object"),
        ({"input": {}, "webhook": "ftp://x"}, "webhook"),
        ({"input": {}, "webhook": "http://169.254.169.254/"}, "webhook must lead to a public address"),
        ({"input": {}, "policy": {"ttl": "x"}}, "policy.ttl"),
        ([], "JSON object"),
    ],
)
@pytest.mark.parametrize("route", ["/run", "/runsync"])
async def test_wrong_envelope_is_a_bad_request(client: httpx.AsyncClient, route: str, body: Any, words: str) -> None:
    assert_error(await client.post(route, json=body), 400, words)


@pytest.mark.parametrize(
    "path", ["/runsync?wait=x", "/runsync?wait=", "/runsync?wait=nan", "/runsync?wait=inf", "/runsync?wait=1_0"]
)
async def test_wait_that_is_no_number_is_a_bad_request(client: httpx.AsyncClient, path: str) -> None:
    assert_error(await client.post(path, json=PROMPT), 400, "wait")
    assert (await client.get("/health")).json()["jobs"]["completed"] == 0


@pytest.mark.parametrize("wait", ["-5", "0", "1", "1e400", "99999999999999999999", "1000.5", "+5"])
async def test_wait_may_be_any_number(client: httpx.AsyncClient, wait: str) -> None:
    assert (await client.post("/runsync", params={"wait": wait}, json=PROMPT)).status_code == 200


@pytest.mark.parametrize("ttl", ["x", "", "-1"])
async def test_bad_ttl_is_a_bad_request(client: httpx.AsyncClient, ttl: str) -> None:
    assert_error(await client.get(f"/status/{await completed(client)}?ttl={ttl}"), 400, "ttl")


async def test_large_body_is_refused(client: httpx.AsyncClient) -> None:
    body = {"input": {"prompt": "x" * 1500}}

    assert_error(await client.post("/run", json=body), 413, "1000")
    assert (await client.post("/runsync", json=body)).status_code == 200
    assert_error(await client.post("/runsync", content=b"x" * 100_000), 413, "2000")


async def test_store_that_is_away_is_a_503(
    client: httpx.AsyncClient, jobs: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> Any:
        raise StoreUnavailableError("postgresql://secret")

    for name in ("submit", "output", "cancel", "counts", "purge"):
        monkeypatch.setattr(jobs.store, name, away)
    for method, path in [("POST", "/run"), ("GET", "/status/a"), ("POST", "/cancel/a"), ("GET", "/health")]:
        response = await client.request(method, path, json=PROMPT)
        assert_error(response, 503, "job store")
        assert "secret" not in response.text
        assert int(response.headers["retry-after"]) > 0


async def test_fault_of_ours_is_a_500_without_a_trace(
    client: httpx.AsyncClient, jobs: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "health", lambda: 1 / 0)

    assert_error(await client.get("/health"), 500)
    assert "ZeroDivision" not in (await client.get("/health")).text


async def test_job_store_that_is_missing_is_a_503_with_retry_after() -> None:
    async with asgi_client(Starlette(routes=[NativeRoutes(lambda: None)])) as client:
        response = await client.post("/run", json=PROMPT)
    assert_error(response, 503)
    assert "retry-after" in response.headers


@pytest.mark.parametrize(
    ("path", "ours"),
    [
        ("/run", True),
        ("/health", True),
        ("/status/a", True),
        ("/v2/a/run", True),
        ("/v2/a/unknown", True),
        ("/v2/a/openai/v1/models", False),
        ("/v2/a/openai", False),
        ("/v1/models", False),
        ("/", False),
        ("/healthz", False),
        ("/readyz", False),
    ],
)
def test_paths_of_the_job_api_are_recognised(path: str, ours: bool) -> None:
    assert is_native_path(path) is ours


async def test_path_that_nothing_serves_has_the_plain_body() -> None:
    app = Starlette(routes=[Route("/x", lambda _: None)], exception_handlers={404: not_found})
    async with asgi_client(app) as client:
        assert_error(await client.get("/nothing"), 404, "/nothing")
