"""Calling an ASGI application as an engine."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus

import pytest
from starlette.types import Receive, Scope, Send

from gptoss_bento.http.errors import BrokenStreamError
from gptoss_bento.http.paths import COMPLETIONS
from gptoss_bento.jobs import engine_client
from gptoss_bento.jobs.engine_client import AsgiEngine
from gptoss_bento.jobs.fake_engine import FakeEngine
from gptoss_bento.jobs.input import MODELS, EngineRequest
from tests.waiting import HANG_S

WHOLE = EngineRequest("POST", COMPLETIONS, body={"prompt": "a b", "max_tokens": 3})
STREAM = EngineRequest("POST", COMPLETIONS, body={"prompt": "a b", "max_tokens": 3, "stream": True}, stream=True)


async def test_whole_answer() -> None:
    async with FakeEngine().engine().call(WHOLE) as reply:
        assert reply.status == 200
        assert not reply.is_event_stream
        assert json.loads(await reply.read())["choices"][0]["text"] == " a b a"


async def test_stream_arrives_as_it_comes() -> None:
    fake = FakeEngine()
    async with fake.engine().call(STREAM) as reply:
        assert reply.is_event_stream
        first = await anext(reply.pieces)
        fake.gate.clear()
        assert b'" a"' in first
        assert (await reply.read()).endswith(b"data: [DONE]\n\n")
    assert fake.aborted == 0


@pytest.mark.parametrize("request_", [WHOLE, STREAM])
async def test_disconnect_aborts_the_generation(request_: EngineRequest) -> None:
    fake = FakeEngine()
    fake.gate.clear()

    async def use() -> None:
        async with fake.engine().call(request_) as reply:
            await reply.read()

    task = asyncio.create_task(use())
    while not fake.running:  # noqa: ASYNC110  # the fake has nothing to wait for
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (fake.running, fake.aborted) == (0, 1)


async def test_path_query_and_request_id_reach_the_application() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        seen.append(scope)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async with AsgiEngine(app).call(EngineRequest("GET", MODELS, "a=1"), "job-1") as reply:
        assert (reply.status, reply.content_type, await reply.read()) == (204, "", b"")
    assert (seen[0]["method"], seen[0]["path"], seen[0]["query_string"]) == ("GET", MODELS, b"a=1")
    assert (b"x-request-id", b"job-1") in seen[0]["headers"]


async def test_application_that_fails_is_a_lost_connection() -> None:
    async def app(_: Scope, __: Receive, ___: Send) -> None:
        raise RuntimeError("secret")

    with pytest.raises(ConnectionError, match=r"failed: RuntimeError$"):
        async with AsgiEngine(app).call(WHOLE):
            pass


@pytest.mark.parametrize("messages", [0, 1, 2])
async def test_answer_that_stops_short_is_a_lost_connection(messages: int) -> None:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        for message in [
            {"type": "http.response.start", "status": 200, "headers": []},
            {"type": "http.response.body", "body": b"x", "more_body": True},
        ][:messages]:
            await send(message)

    with pytest.raises(ConnectionError):
        async with AsgiEngine(app).call(WHOLE) as reply:
            await reply.read()


async def test_application_that_ignores_the_disconnect_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptoss_bento.jobs.engine_client._ABORT_GRACE_S", 0.01)
    ended = asyncio.Event()

    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with AsgiEngine(app).call(WHOLE):
        pass
    assert ended.is_set()


async def test_writer_that_is_far_ahead_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_client, "_ABORT_GRACE_S", 2 * HANG_S)

    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _i in range(1000):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})

    async with asyncio.timeout(HANG_S), AsgiEngine(app).call(WHOLE) as reply:
        assert await anext(reply.pieces) == b"x"


async def _broken(status: HTTPStatus) -> bytes:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        raise BrokenStreamError(status, "no such grammar")

    async with AsgiEngine(app).call(STREAM) as reply:
        return await reply.read()


async def test_stream_that_the_engine_refuses_ends_with_its_error() -> None:
    last = (await _broken(HTTPStatus.BAD_REQUEST)).removeprefix(b"data: 1\n\ndata: ")

    assert json.loads(last)["error"]["message"] == "no such grammar"
    assert json.loads(last)["error"]["code"] == 400


async def test_stream_that_the_engine_breaks_off_has_no_end() -> None:
    with pytest.raises(ConnectionError, match="no such grammar"):
        await _broken(HTTPStatus.SERVICE_UNAVAILABLE)
