from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from gptoss_bento.http.error_boundary import ErrorBoundary
from gptoss_bento.http.errors import BrokenStreamError
from tests.fakes import asgi_client

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]
CHAT, NATIVE = "/v2/local/openai/v1/chat/completions", "/status/x"


async def ask(handler: Handler, path: str = CHAT, limit_s: float = 5) -> httpx.Response:
    async with asgi_client(ErrorBoundary(handler, limit_s)) as client:
        return await client.post(path)


async def slow(_scope: Scope, _receive: Receive, _send: Send) -> None:
    await asyncio.sleep(60)


async def faulty(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise KeyError("a secret of the server")


# Nothing to add


@pytest.mark.parametrize(
    "answer",
    [
        JSONResponse({"id": 1}),
        JSONResponse({"error": {"message": "m", "param": "n", "code": 400}}, 400),
        Response(status_code=204),
        Response(status_code=499),
    ],
)
async def test_answer_without_error_passes(answer: Response) -> None:
    response = await ask(answer)

    assert (response.status_code, response.content) == (answer.status_code, bytes(answer.body))


async def test_events_pass_as_they_come() -> None:
    sent: list[Message] = []

    async def events() -> AsyncIterator[str]:
        for i in range(3):
            yield f"data: {i}\n\n"
            assert sent[-1]["body"] == f"data: {i}\n\n".encode()

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "path": CHAT, "method": "POST"}
    await ErrorBoundary(StreamingResponse(events(), media_type="text/event-stream"), 5)(scope, never, send)
    assert len(sent) == 5


async def never() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


async def test_disconnect_is_no_server_error(caplog: pytest.LogCaptureFixture) -> None:
    sent: list[Message] = []

    async def left() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    async def reads(scope: Scope, receive: Receive, _send: Send) -> None:
        await Request(scope, receive).body()

    await ErrorBoundary(reads, 5)({"type": "http", "path": CHAT, "method": "POST", "headers": []}, left, send)
    assert not sent
    assert not caplog.records


# Errors of every layer, in the shape of the API


BENTOML_BUSY = JSONResponse({"error": "Too many requests"}, 429)
STARLETTE_METHOD = PlainTextResponse("Method Not Allowed", 405, headers={"Allow": "POST"})
STARLETTE_PATH = PlainTextResponse("Not Found", 404)
FASTAPI = JSONResponse({"detail": "something"}, 422)
BARE = PlainTextResponse("Internal Server Error", 500)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (BENTOML_BUSY, "Too many requests"),
        (STARLETTE_METHOD, "takes POST"),
        (STARLETTE_PATH, "There is no route"),
        (FASTAPI, "something"),
        (BARE, "Internal Server Error."),
        (Response(status_code=413), "Request Entity Too Large."),
    ],
)
async def test_error_has_the_shape_of_its_api(answer: Response, message: str) -> None:
    openai, native, anthropic = [await ask(answer, path) for path in (CHAT, NATIVE, "/v1/messages")]

    assert {openai.status_code, native.status_code, anthropic.status_code} == {answer.status_code}
    assert openai.json()["error"].keys() == {"message", "type", "param", "code"}
    assert message in openai.json()["error"]["message"]
    assert message in native.json()["error"]
    assert anthropic.json()["type"] == "error"
    assert message in anthropic.json()["error"]["message"]


@pytest.mark.parametrize("path", [CHAT, NATIVE])
@pytest.mark.parametrize("status", [429, 503])
async def test_error_says_when_to_try_again(path: str, status: int) -> None:
    plain = await ask(PlainTextResponse("", status), path)
    said = await ask(PlainTextResponse("", status, headers={"Retry-After": "77"}), path)
    shaped = await ask(JSONResponse({"error": "busy" if path == NATIVE else {"message": "busy"}}, status), path)

    assert (plain.headers["retry-after"], said.headers["retry-after"]) == ("5", "77")
    assert shaped.headers["retry-after"] == "5"
    assert shaped.headers["content-type"] == "application/json"
    assert "busy" in shaped.text


@pytest.mark.parametrize("answer", [JSONResponse({"status": "starting"}, 503), Response(status_code=503)])
async def test_probe_answer_is_no_error(answer: Response) -> None:
    for path in ("/readyz", "/ping"):
        assert (await ask(answer, path)).content == bytes(answer.body)


async def test_error_keeps_its_other_headers() -> None:
    response = await ask(STARLETTE_METHOD)

    assert response.headers["allow"] == "POST"
    assert response.json()["error"]["code"] == 405


# Time


@pytest.mark.parametrize(("path", "shape"), [(CHAT, dict), (NATIVE, str)])
async def test_timeout_ends_an_answer_that_does_not_start(path: str, shape: type) -> None:
    response = await ask(slow, path, limit_s=0.01)

    assert response.status_code == 504
    assert isinstance(response.json()["error"], shape)
    assert "REQUEST_TIMEOUT" in response.text


async def test_timeout_does_not_end_an_answer_that_has_started() -> None:
    async def events() -> AsyncIterator[str]:
        yield "data: 1\n\n"
        await asyncio.sleep(0.6)
        yield "data: 2\n\n"

    response = await ask(StreamingResponse(events(), media_type="text/event-stream"), limit_s=0.5)

    assert response.text == "data: 1\n\ndata: 2\n\n"


async def test_timer_does_not_outlive_its_request() -> None:
    loop = asyncio.get_running_loop()
    before = len(timers(loop))
    for _ in range(200):
        await ask(JSONResponse({}), limit_s=3600)
    assert len(timers(loop)) - before < 10


def timers(loop: Any) -> list[asyncio.TimerHandle]:
    return [handle for handle in loop._scheduled if not handle.cancelled()]


# The final error event


async def test_internal_error_is_reported_without_details(caplog: pytest.LogCaptureFixture) -> None:
    openai, native = await ask(faulty), await ask(faulty, NATIVE)

    assert openai.status_code == native.status_code == 500
    assert openai.json()["error"]["code"] == 500
    assert "its log says which" in native.json()["error"]
    assert "secret" not in openai.text + native.text
    assert "KeyError" in caplog.text


async def test_timeout_within_is_no_timeout_of_the_request() -> None:
    async def handler(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise TimeoutError

    assert (await ask(handler)).status_code == 500


def breaking(error: Exception) -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        yield "data: 1\n\n"
        raise error

    return StreamingResponse(events(), media_type="text/event-stream")


def last_event(response: httpx.Response) -> tuple[str, dict[str, Any]]:
    *_, last = response.text.strip().split("\n\n")
    name, _, data = last.rpartition("data: ")
    return name.strip(), json.loads(data)


async def test_stream_that_breaks_ends_with_an_error_and_not_with_done() -> None:
    error = BrokenStreamError(HTTPStatus.SERVICE_UNAVAILABLE, "The engine died.")
    chat = await ask(breaking(error))
    responses = await ask(breaking(error), "/v1/responses")
    messages = await ask(breaking(error), "/v1/messages")

    body = {"message": "The engine died.", "type": "Service Unavailable", "param": None, "code": 503}
    assert chat.status_code == 200
    assert last_event(chat) == ("", {"error": body})
    assert last_event(responses)[0] == "event: error"
    assert last_event(responses)[1] == {"type": "error", "code": "503", "message": "The engine died.", "param": None}
    anthropic = {"type": "overloaded_error", "message": "The engine died."}
    assert last_event(messages) == ("event: error", {"type": "error", "error": anthropic})
    assert "[DONE]" not in chat.text + responses.text + messages.text


async def test_stream_that_meets_an_internal_error_reports_it() -> None:
    response = await ask(breaking(KeyError("secret")))

    assert last_event(response)[1]["error"]["code"] == 500
    assert "secret" not in response.text


async def test_body_that_is_no_stream_breaks_off() -> None:
    async def pieces() -> AsyncIterator[str]:
        yield "{"
        raise KeyError

    with pytest.raises(ConnectionResetError):
        await ask(StreamingResponse(pieces(), media_type="application/json"))
