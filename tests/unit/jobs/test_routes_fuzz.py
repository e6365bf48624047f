"""Whatever comes in, bytes, JSON or what the OpenAPI description permits and forbids, the routes answer as documented:
no fault of ours (500), nothing undocumented (422). `FUZZ_EXAMPLES` says how many of each are tried.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from typing import Any

import pytest
import requests
import schemathesis
import sqlalchemy as sa
from hypothesis import example, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from starlette.applications import Starlette
from starlette.types import Scope

from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.jobs.api.openapi import job_api
from gptoss_bento.jobs.api.routes import NativeRoutes
from gptoss_bento.jobs.fake_engine import FakeEngine
from gptoss_bento.jobs.runner import Runner, running_jobs
from tests.fakes import asgi_client
from tools.fuzzing import FUZZ, SCALARS, exchanged, fuzz_round

__all__ = ["fuzz_round"]

DOCUMENTED = {200, 400, 404, 405, 413, 429}
FAULT = "The server could not run the job; its log says why."


@pytest.fixture(scope="module")
async def routes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NativeRoutes]:
    """One server for all examples. Its limits are small, so that they are met; nothing is waited for long."""
    limits = ServerSettings(
        max_run_body_bytes=2000,
        max_runsync_body_bytes=2000,
        runsync_wait_ms=1000,
        webhook_allow_private=True,
        webhook_retries=0,
    )
    async with running_jobs(limits, tmp_path_factory.mktemp("jobs") / "jobs.sqlite3") as runner:
        engine = runner.store._database.engine  # type: ignore[attr-defined]
        sa.event.listen(engine, "checkout", _cache_little)
        runner.attach(FakeEngine().engine())
        yield NativeRoutes(_given(runner))


def _cache_little(connection: sqlite3.Connection, *_: Any) -> None:
    """Each keeps up to 2 MB of a store that grows, which would look like a leak."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA cache_size = -50")
    cursor.close()


def _given(runner: Runner) -> Any:
    return lambda: runner


async def answer(routes: NativeRoutes, method: str, path: str, query: bytes, kind: bytes, body: bytes) -> Any:
    """What the routes answer, as the contract has it."""
    scope: Scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "headers": [(b"content-type", kind)],
    }
    sent = await exchanged(routes.handle, scope, body)
    status, text = sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])
    assert status in DOCUMENTED, text
    assert b"\n" not in text
    content = json.loads(text)
    assert content.get("error") != FAULT
    assert (status == 200) or isinstance(content["error"], str)
    return content


ACTIONS = ["run", "runsync", "status", "status-sync", "stream", "cancel", "retry", "purge-queue", "health"]
METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "get", "X"])
SEGMENTS = st.sampled_from([*ACTIONS, "v2", "local", "", "..", "openai"]) | st.text(max_size=8)
PATHS = st.lists(SEGMENTS, max_size=5).map(lambda parts: "/" + "/".join(parts)) | st.tuples(
    st.sampled_from(["/", "/v2/local/"]), st.sampled_from(ACTIONS), st.sampled_from(["", "/", "/JOB", "/unknown"])
).map("".join)  # JOB is replaced by one that has ended
QUERIES = st.binary(max_size=20) | st.tuples(
    st.sampled_from(["wait", "ttl"]),
    st.integers(0, 20).map(str) | st.sampled_from(["-1", "1e2", "nan", "x", "%FF", ""]),
).map(lambda pair: "=".join(pair).encode())


@FUZZ
@given(METHODS, PATHS, QUERIES, st.binary(max_size=20), st.binary(max_size=60))
@example("POST", "/status/\x00", b"", b"", b"")
async def test_requests_of_any_kind_get_a_documented_answer(
    routes: NativeRoutes, method: str, path: str, query: bytes, kind: bytes, body: bytes
) -> None:
    if path.endswith("/JOB"):
        done = await answer(routes, "POST", "/runsync", b"", b"", b'{"input":{"prompt":"a","stream":true}}')
        path = path.replace("JOB", done["id"])
    await answer(routes, method, path, query, kind, body)


BODIES = st.binary(max_size=200) | st.binary(min_size=2001, max_size=2100)


@FUZZ
@given(st.sampled_from(["/run", "/runsync", "/v2/local/run"]), BODIES)
@example("/run", b"[" * 1900)
@example("/run", b'{"input":' * 200)
@example("/run", b'{"input":{"prompt":"\\ud800"}}')
@example("/run", '{"input":{}}'.encode("utf-16"))
async def test_bytes_of_any_kind_are_a_job_or_a_bad_request(routes: NativeRoutes, path: str, body: bytes) -> None:
    await answer(routes, "POST", path, b"", b"application/json", body)


INPUTS = ["prompt", "messages", "stream", "openai_input", "openai_route", "route", "body", "method", "model"]
PARAMETERS = ["sampling_params", "n", "stop", "max_tokens", "temperature", "logit_bias", "max_batch_size"]
NAMES = st.sampled_from([*INPUTS, *PARAMETERS, "apply_chat_template", "role", "content"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(NAMES | st.text(max_size=4), inner, max_size=4)
        | st.fixed_dictionaries({"role": st.just("user"), "content": inner}).map(lambda message: [message])
    ),
    max_leaves=8,
)
ENVELOPES = st.dictionaries(
    st.sampled_from(["input", "policy", "webhook", "s3Config"]) | st.text(max_size=4), VALUES, max_size=4
) | st.fixed_dictionaries(
    {"input": st.dictionaries(NAMES, VALUES, max_size=4)},
    optional={
        "policy": st.dictionaries(st.sampled_from(["executionTimeout", "ttl", "lowPriority"]), SCALARS),
        "webhook": SCALARS,
    },
)


@FUZZ
@given(ENVELOPES | VALUES)
async def test_json_of_any_kind_is_a_job_that_ends_or_a_bad_request(routes: NativeRoutes, body: Any) -> None:
    content = await answer(routes, "POST", "/runsync", b"", b"application/json", json.dumps(body).encode())

    assert "error" in content or content["status"] == "COMPLETED"


# What the description permits and forbids.

URLS = st.sampled_from(["http://127.0.0.1:9/", "https://[::1]:9/x?y=1"])


def described_calls() -> st.SearchStrategy[Any]:
    """Calls of every operation, as it is described and, where there is anything to be wrong, otherwise."""
    schemathesis.openapi.format("uri", URLS)
    document = {"openapi": "3.1.0", "info": {"title": "jobs", "version": "1"}, **job_api()}
    schema = schemathesis.openapi.from_dict(document)
    operations: list[Any] = [found.ok() for found in schema.get_all_operations()]  # type: ignore[union-attr]
    right = [operation.as_strategy() for operation in operations]
    open_to_errors = [operation for operation in operations if operation.body or operation.query]
    wrong = [each.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE) for each in open_to_errors]
    return st.one_of(*right, *wrong)


@settings(FUZZ, max_examples=FUZZ.max_examples // 2)  # each takes ten times as long to make
@given(st.deferred(described_calls), st.booleans())
async def test_answers_are_all_as_described(routes: NativeRoutes, case: Any, of_a_job: bool) -> None:
    async with asgi_client(Starlette(routes=[routes])) as client:
        if of_a_job and "id" in case.path_parameters:
            fails = {"openai_input": {"wait": 1}} if case.query else {}  # which the fake engine cannot answer
            job = {"input": {"prompt": "a b", "stream": True, **fails}}
            case.path_parameters["id"] = (await client.post("/runsync", json=job)).json()["id"]
        call: Any = requests.Request(**case.as_transport_kwargs(base_url="http://test")).prepare()
        response = await client.request(
            str(call.method), str(call.url), content=call.body or b"", headers=dict(call.headers)
        )
    # What is wrong inside `input` is a job that fails, no error of HTTP. Not every job or size is right.
    refusable = case.path == "/retry/{id}" or response.status_code in (413, 422)
    unfit = [negative_data_rejection, *([positive_data_acceptance] if refusable else [])]
    case.validate_response(response, excluded_checks=unfit)
    assert response.json().get("error") != FAULT
