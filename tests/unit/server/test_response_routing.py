"""Two workers, each with a fake of vLLM's application, that reach each other by real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from gptoss_bento.access.admission import Admission
from gptoss_bento.access.admission_middleware import AdmissionMiddleware
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.engine.background_tasks import BackgroundTasks
from gptoss_bento.http.body import BodyMemoryExhaustedError
from gptoss_bento.http.error_boundary import ErrorBoundary
from gptoss_bento.server import response_routing
from gptoss_bento.server.response_routing import ForwardedRequests, ResponseRouting
from tests.fakes import asgi_client
from tests.unit.http.test_openai_dispatch import is_openai_error
from tests.waiting import HANG_S


@dataclass
class FakeResponses:
    """A fake of vLLM's application: keeps responses, and echoes its requests."""

    name: str
    kept: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    hanging: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: BackgroundTasks = field(default_factory=BackgroundTasks)
    end: asyncio.Event = field(default_factory=asyncio.Event)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/responses/{id}/cancel", self.show, methods=["POST"]),
                Route("/v1/responses/{id}", self.show, methods=["GET"]),
                Route("/v1/responses", self.make, methods=["POST"]),
                Route("/detokenize", self.make, methods=["POST"]),
            ]
        )

    async def show(self, request: Request) -> Response:
        self.asked.append(f"{request.method} {request.url.path}?{request.url.query}")
        if request.path_params["id"] not in self.kept:
            return JSONResponse({"by": self.name}, 404)
        if "stream" in request.query_params:
            return StreamingResponse(iter((b"data: 1\n\n", b"data: 2\n\n")), media_type="text/event-stream")
        return JSONResponse({"by": self.name})

    async def make(self, request: Request) -> Response:
        body = await request.body()
        if b"background" in body:
            self.tasks["resp_9"] = asyncio.create_task(self.end.wait())
        if b"hang" in body:
            self.hanging.set()
            try:
                while not await request.is_disconnected():  # noqa: ASYNC110  # Starlette has no event for it
                    await asyncio.sleep(0.01)
            finally:
                self.left.set()
        key = request.headers.get("authorization")
        return JSONResponse({"by": self.name, "body": body.decode(), "key": key, "headers": list(request.headers)})


SETTINGS = ServerSettings(max_openai_requests=1, max_openai_body_bytes=1000)


def guarded(responses: FakeResponses, table: Path) -> ASGIApp:
    """As server/worker.py has it in each of several workers."""
    admission = Admission()
    admission.share(table)
    app = AdmissionMiddleware(responses.app, admission, SETTINGS).app()
    assert app
    return app


@dataclass
class Workers:
    here: FakeResponses
    there: FakeResponses
    app: ASGIApp
    client: httpx.AsyncClient
    is_certain: bool = True  # whether the other one can say what it has

    def holds_there(self, response_id: str) -> bool | None:
        return response_id in self.there.kept if self.is_certain else None


@pytest.fixture
async def workers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Workers]:
    here, there = FakeResponses("here"), FakeResponses("there", {"resp_1"})
    folder = tmp_path_factory.mktemp("t")
    app = ResponseRouting(guarded(here, folder / "limits"), here.kept.__contains__, [folder / "http-1"], SETTINGS)
    async with asgi_client(app) as client:
        made = Workers(here, there, app, client)
        other = ForwardedRequests(guarded(there, folder / "limits"), made.holds_there)
        server = uvicorn.Server(uvicorn.Config(other, uds=str(folder / "http-1"), log_config=None, lifespan="off"))
        task = asyncio.create_task(server._serve())
        while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
            await asyncio.sleep(0.005)
        yield made
        server.should_exit = True
        await task


def beside_one_that_is_gone(workers: Workers) -> httpx.AsyncClient:
    """Of a worker that has a third one, whose socket is not served any more."""
    app = workers.app
    assert isinstance(app, ResponseRouting)
    (other,) = app._others
    asked = [other.with_name("http-2"), other]
    return asgi_client(ResponseRouting(app._app, app._holds, asked, SETTINGS))


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/responses/resp_1"), ("POST", "/v1/responses/resp_1/cancel")])
async def test_response_of_another_worker_is_found_there(workers: Workers, method: str, path: str) -> None:
    reply = await workers.client.request(method, path)

    assert (reply.status_code, reply.json()) == (200, {"by": "there"})
    assert "date" not in reply.headers, "uvicorn adds one here"
    assert workers.there.asked == [f"{method} {path}?"], "once, and nothing else"
    assert workers.here.asked == []


async def test_response_of_this_worker_needs_no_lookup(workers: Workers) -> None:
    workers.here.kept.add("resp_2")

    assert (await workers.client.get("/v1/responses/resp_2")).json() == {"by": "here"}
    assert workers.there.asked == []


async def test_response_that_no_worker_has_is_refused_here(workers: Workers) -> None:
    reply = await workers.client.get("/v1/responses/resp_3")

    assert (reply.status_code, reply.json()) == (404, {"by": "here"})
    assert workers.there.asked == []


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_response_of_a_worker_that_does_not_answer_is_no_404(workers: Workers, method: str) -> None:
    workers.is_certain = False
    path = "/v1/responses/resp_1" if method == "GET" else "/v1/responses"

    reply = await workers.client.request(method, path, json={"input": "x", "previous_response_id": "resp_1"})

    assert is_openai_error(reply, 503, "A worker that may hold this response")
    assert int(reply.headers["retry-after"]) > 0
    assert workers.here.asked == workers.there.asked == []


async def test_worker_that_is_gone_is_asked_in_vain(workers: Workers) -> None:
    async with beside_one_that_is_gone(workers) as client:
        assert (await client.get("/v1/responses/resp_1")).json() == {"by": "there"}
        assert is_openai_error(await client.get("/v1/responses/resp_3"), 503, "A worker that may hold this response")


async def test_preflight_is_answered_here(workers: Workers) -> None:
    await workers.client.options("/v1/responses/resp_1")

    assert workers.there.asked == []


async def test_url_that_cannot_be_passed_on_is_refused(workers: Workers) -> None:
    query = b'"' * 30_000  # three bytes each when quoted, and httpx takes 65,536

    reply = await exchanged(workers.app, scope_of("GET", "/v1/responses/resp_1", query), [])

    assert reply[0]["status"] == 414
    assert workers.there.asked == []


async def test_stored_stream_comes_through_with_its_query(workers: Workers) -> None:
    reply = await workers.client.get("/v1/responses/resp_1?stream=true&starting_after=0")

    assert reply.text == "data: 1\n\ndata: 2\n\n"
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert workers.there.asked[-1] == "GET /v1/responses/resp_1?stream=true&starting_after=0"


async def test_response_that_continues_another_is_made_by_its_worker(workers: Workers) -> None:
    asked = {"input": "x", "previous_response_id": "resp_1"}
    reply = await workers.client.post("/v1/responses", json=asked, headers={"authorization": "Bearer k"})

    assert reply.json()["by"] == "there"
    assert reply.json()["body"] == '{"input":"x","previous_response_id":"resp_1"}'
    assert reply.json()["key"] == "Bearer k"


async def test_header_that_ends_with_a_space_is_passed_on_without(workers: Workers) -> None:
    scope = scope_of("POST", "/v1/responses", headers=[(b"authorization", b"Bearer k \t")])

    _, body, *_ = await exchanged(workers.app, scope, [b'{"previous_response_id": "resp_1"}'])

    assert json.loads(body["body"])["key"] == "Bearer k"


async def test_head_does_not_grow_on_its_way_beyond_the_bounds(workers: Workers) -> None:
    scope = scope_of("POST", "/v1/responses", headers=[(b"host", b"a"), (b"content-length", b"34"), (b"x", b"y")])

    _, body, *_ = await exchanged(workers.app, scope, [b'{"previous_response_id": "resp_1"}'])

    assert sorted(json.loads(body["body"])["headers"]) == ["content-length", "host", "x"]


async def test_response_in_another_worker_keeps_its_slot_there_until_it_has_ended(workers: Workers) -> None:
    asked = {"input": "x", "previous_response_id": "resp_1", "background": True}
    assert (await workers.client.post("/v1/responses", json=asked)).json()["by"] == "there"

    for follows in ({"input": "x"}, {"input": "x", "previous_response_id": "resp_1"}):
        assert (await workers.client.post("/v1/responses", json=follows)).status_code == 429
    workers.there.end.set()
    await workers.there.tasks["resp_9"]
    assert (await workers.client.post("/v1/responses", json={"input": "x"})).json()["by"] == "here"


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/responses/resp_1/cancel"])
async def test_body_that_is_too_large_goes_nowhere(workers: Workers, path: str) -> None:
    reply = await workers.client.post(path, json={"previous_response_id": "resp_1", "input": "x" * 1000})

    assert reply.status_code == 413
    assert "at most 1000 bytes" in reply.json()["error"]["message"]
    assert workers.here.asked == workers.there.asked == []


async def test_body_that_was_evicted_is_refused_as_the_guards_do(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crowded(*_: object) -> bytes:
        raise BodyMemoryExhaustedError

    monkeypatch.setattr(response_routing, "read_body", crowded)

    reply = await workers.client.post("/v1/responses", json={"previous_response_id": "resp_1"})

    assert is_openai_error(reply, 503, "Too many large bodies")


@pytest.mark.parametrize("body", ['{"input": "x"}', '{"previous_response_id": 3}', '{"previous_response_id": "a/b"}'])
async def test_request_without_a_response_id_stays_here_with_its_body(workers: Workers, body: str) -> None:
    reply = await workers.client.post("/v1/responses", content=body)

    answer = reply.json()
    assert (answer["by"], answer["body"], answer["key"]) == ("here", body, None)


@pytest.mark.parametrize("body", ["{", "[1]"])
async def test_request_that_is_no_json_object_is_refused_here(workers: Workers, body: str) -> None:
    reply = await workers.client.post("/v1/responses", content=body)

    assert is_openai_error(reply, 400, "The body must be a JSON object")
    assert workers.here.asked == workers.there.asked == []


async def test_routes_of_other_kinds_are_not_touched(workers: Workers) -> None:
    reply = await workers.client.post("/detokenize", json={"previous_response_id": "resp_1"})

    assert reply.json()["by"] == "here"


async def test_client_that_leaves_ends_its_request_in_the_other_worker(workers: Workers) -> None:
    left = asyncio.Event()
    body = b'{"previous_response_id": "resp_1", "hang": 1}'
    task = asyncio.create_task(exchanged(workers.app, scope_of("POST", "/v1/responses"), [body], left))
    async with asyncio.timeout(HANG_S):
        await workers.there.hanging.wait()
        left.set()
        assert await task == []
        await workers.there.left.wait()


def scope_of(method: str, path: str, query: bytes = b"", headers: Sequence[tuple[bytes, bytes]] = ()) -> dict[str, Any]:
    return {"type": "http", "method": method, "path": path, "query_string": query, "headers": headers}


async def exchanged(
    app: ASGIApp, scope: dict[str, Any], bodies: list[bytes], left: asyncio.Event | None = None
) -> list[dict[str, Any]]:
    """What is sent to a client that may leave, of a request that no client of ours would send."""
    sent: list[dict[str, Any]] = []
    messages = [{"type": "http.request", "body": body} for body in bodies or [b""]]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await (left or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


IS_THERE = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"
FOLLOWS = {"input": "x", "previous_response_id": "resp_1"}


@pytest.fixture
async def killed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[httpx.AsyncClient, list[bytes]]]:
    """A worker beside one that holds every response, says the bytes of the list on its connections, and is killed."""
    path, said = tmp_path_factory.mktemp("t") / "http-1", [IS_THERE]

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said.pop(0))
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(say, path)
    app = ErrorBoundary(ResponseRouting(FakeResponses("here").app(), lambda _: False, [path], SETTINGS), 60)
    async with server, asgi_client(app) as client:
        yield client, said


@pytest.mark.parametrize("rest", [b"", b"9\r\ndata: 2\n\n", b"4\r\ndata\r\n", b"7\r\ndata: 2\r\n1\r\n\n\r\n"])
async def test_stream_whose_worker_is_killed_ends_with_an_error_event(
    killed: tuple[httpx.AsyncClient, list[bytes]], rest: bytes
) -> None:
    client, said = killed
    said.append(STREAM + b"9\r\ndata: 1\n\n\r\n" + rest)

    *events, last, nothing = (await client.post("/v1/responses", json=FOLLOWS)).text.split("\n\n")

    assert events in (["data: 1"], ["data: 1", "data: 2"]), "none of them broken"
    assert last.startswith('event: error\ndata: {"type": "error", "code": "503", "message": "The worker that holds')
    assert nothing == ""


async def test_worker_that_is_killed_before_it_answers_is_a_503(
    killed: tuple[httpx.AsyncClient, list[bytes]],
) -> None:
    client, said = killed
    said.append(b"")

    reply = await client.post("/v1/responses", json=FOLLOWS)

    assert is_openai_error(reply, 503, "The worker that holds this response")
    assert int(reply.headers["retry-after"]) > 0


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n", b"?\r\n\r\n"])
async def test_lookup_with_an_invalid_answer_is_a_503(
    killed: tuple[httpx.AsyncClient, list[bytes]], answer: bytes
) -> None:
    client, said = killed
    said[:] = [answer]

    assert is_openai_error(await client.get("/v1/responses/resp_1"), 503, "A worker that may hold this response")


async def test_answer_in_one_piece_whose_worker_is_killed_breaks_off(
    killed: tuple[httpx.AsyncClient, list[bytes]],
) -> None:
    client, said = killed
    said.append(WHOLE)

    with pytest.raises(ConnectionResetError):  # uvicorn cuts the connection
        await client.get("/v1/responses/resp_1")
