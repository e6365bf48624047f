"""The middleware between a client and the engine's application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gptoss_bento.access.admission import Admission, engine_rule, key_rules
from gptoss_bento.access.admission_middleware import AdmissionMiddleware
from gptoss_bento.access.authentication import Authentication
from gptoss_bento.access.key_store import KeyStore
from gptoss_bento.config.api_keys import Key as OneKey
from gptoss_bento.config.api_keys import KeyLimits, digest
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.http.error_boundary import ErrorBoundary
from gptoss_bento.http.fields.served_model import GPT_OSS, ServedModel
from gptoss_bento.http.openai_dispatch import OpenAIApi
from gptoss_bento.jobs.fake_engine import FakeEngine
from tests.fakes import FakeEngineApp, asgi_client
from tests.unit.http.test_openai_dispatch import is_openai_error
from tests.waiting import HANG_S, until

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "one two three"}], "max_tokens": 5}
MANY = ServerSettings(max_openai_requests=8)
SMALL = ServerSettings(max_openai_requests=2, max_openai_body_bytes=200, client_timeout=HANG_S)


def guarded(app: ASGIApp, settings: ServerSettings = SMALL, **limits: Any) -> ASGIApp:
    """The way of a request to the engine; with limits, everybody must bring the key `s3cret`."""
    guard = AdmissionMiddleware(lambda: app, Admission(), settings)
    routes = OpenAIApi(Starlette(), guard.app)
    ring = KeyStore([OneKey("alice", (digest("s3cret"),), KeyLimits(**limits))]) if limits else KeyStore()
    return Authentication(routes, ring)


@asynccontextmanager
async def client_of(app: ASGIApp, settings: ServerSettings = SMALL, **limits: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with asgi_client(guarded(app, settings, **limits)) as client:
        client.headers["Authorization"] = "Bearer s3cret"
        yield client


async def test_engine_that_is_missing_needs_no_admission() -> None:
    guard = AdmissionMiddleware(lambda: None, Admission(), SMALL)
    async with asgi_client(OpenAIApi(Starlette(), guard.app)) as client:
        assert (await client.post(CHAT, json=BODY)).status_code == 503


@pytest.mark.parametrize(("method", "path"), [("POST", CHAT), ("POST", "/tokenize"), ("GET", "/v1/models")])
async def test_request_within_the_limits_passes_unchanged(method: str, path: str) -> None:
    async with client_of(FakeEngineApp()) as client:
        response = await client.request(method, path, content=b'{"a": 1}' if method == "POST" else b"")

    assert response.status_code == 200
    assert response.json()["body"] == ('{"a": 1}' if method == "POST" else "")
    assert not [name for name in response.headers if name.startswith("x-ratelimit")]


async def pieces_of(count: int) -> AsyncIterator[bytes]:
    """A request of a hundred bytes a piece."""
    text = b'{"user":"%s"}' % (b"x" * (count * 100 - len('{"user":""}')))
    for start in range(0, len(text), 100):
        yield text[start : start + 100]


@pytest.mark.parametrize("path", [CHAT, "/openai/v1/completions", "/tokenize", "/v1/responses", "/v1/messages"])
async def test_body_that_is_too_large_is_a_413_counted_as_it_comes(path: str) -> None:
    app = FakeEngineApp()
    async with client_of(app) as client:
        assert (await client.post(path, content=pieces_of(2))).status_code == 200
        response = await client.post(path, content=pieces_of(3))

    assert is_openai_error(response, 413, "at most 200 bytes")
    assert len(app.scopes) == 1


async def test_sender_that_never_ends_gets_a_408_and_takes_no_slot() -> None:
    sent: list[Message] = []
    sent_once = False

    async def receive() -> Message:
        nonlocal sent_once
        if not sent_once:
            sent_once = True
            return {"type": "http.request", "body": b"{", "more_body": True}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    app = FakeEngineApp()
    scope: Scope = {"type": "http", "method": "POST", "path": CHAT, "headers": [], "query_string": b""}
    await guarded(app, ServerSettings(client_timeout=0.05))({**scope, "raw_path": CHAT.encode()}, receive, send)

    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]
    assert app.scopes == []


async def test_concurrency_limit_answers_429_with_retry_after() -> None:
    fake = FakeEngine()
    fake.gate.clear()
    async with client_of(fake.app()) as client:
        running = [asyncio.create_task(client.post(CHAT, json=BODY)) for _ in range(2)]
        await until(lambda: fake.running == 2)
        refused = await client.post(CHAT, json=BODY)
        assert is_openai_error(refused, 429, "This server may have 2 concurrent requests")
        assert int(refused.headers["retry-after"]) >= 1
        assert (await client.get("/v1/models")).status_code == 200
        assert (await client.post("/tokenize", json={"prompt": "a"})).status_code == 200
        fake.gate.set()
        assert [response.status_code for response in await asyncio.gather(*running)] == [200, 200]
        assert (await client.post(CHAT, json=BODY)).status_code == 200


async def test_concurrency_slots_are_taken_by_each_generation() -> None:
    fake = FakeEngine()
    fake.gate.clear()
    async with client_of(fake.app(), MANY) as client:
        running = asyncio.create_task(client.post(CHAT, json={**BODY, "n": 5}))
        await until(lambda: fake.running == 1)
        refused = await client.post(CHAT, json={**BODY, "n": 4})
        assert is_openai_error(refused, 429, "8 concurrent requests, and this one counts as 4")
        fits = asyncio.create_task(client.post(CHAT, json={**BODY, "n": 3}))
        await until(lambda: fake.running == 2)
        assert (await client.post(CHAT, json=BODY)).status_code == 429
        fake.gate.set()
        assert [(await each).status_code for each in (running, fits)] == [200, 200]
        assert (await client.post(CHAT, json={**BODY, "n": 8})).status_code == 200


@pytest.mark.parametrize(("limits", "who"), [({}, "This server takes 8"), ({"streams": 4}, "This key takes 4")])
async def test_generations_beyond_all_slots_are_refused(limits: dict[str, Any], who: str) -> None:
    fake = FakeEngine()
    async with client_of(fake.app(), MANY, **limits) as client:
        chat = await client.post(CHAT, json={**BODY, "n": 9})
        completion = await client.post("/v1/completions", json={"prompt": ["a", "b", "c"], "n": 3})

    for refused in (chat, completion):
        assert is_openai_error(refused, 400, f"{who} concurrent generations; n times the number of prompts is 9")
        assert refused.json()["error"]["param"] == "n"
    assert fake.requests == []


async def test_concurrency_slot_is_returned_after_failure_and_disconnect() -> None:
    async def broken(_: Scope, __: Receive, ___: Send) -> None:
        raise ZeroDivisionError

    async with client_of(broken) as client:
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await client.post(CHAT, json=BODY)

    fake = FakeEngine()
    fake.gate.clear()
    async with client_of(fake.app()) as client:
        for _ in range(3):
            left = asyncio.create_task(client.post(CHAT, json={**BODY, "stream": True}))
            await until(lambda: fake.running == 1)
            left.cancel()
            await asyncio.gather(left, return_exceptions=True)
            await until(lambda: fake.running == 0)


async def test_rate_limits_of_a_key_are_shown_in_headers() -> None:
    async with client_of(FakeEngine().app(), requests_per_minute=2, tokens_per_minute=600) as client:
        first = await client.post(CHAT, json=BODY)
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        second = await client.post(CHAT, json=BODY)
        # three words of prompt and five tokens of answer, known after the answer
        assert (first.headers["x-ratelimit-remaining-tokens"], second.headers["x-ratelimit-remaining-tokens"]) == (
            "600",
            "592",
        )
        third = await client.post(CHAT, json=BODY)

    assert is_openai_error(third, 429, "This key may make 2 requests in 60 s")
    assert third.headers["retry-after"] == "30"
    assert third.headers["x-ratelimit-remaining-requests"] == "0"


async def test_stream_that_is_left_is_charged_for_what_it_used() -> None:
    fake = FakeEngine(delay_s=0.001)
    async with client_of(fake.app(), tokens_per_minute=600) as client:
        left = asyncio.create_task(client.post(CHAT, json={**BODY, "stream": True, "max_tokens": 500}))
        await until(lambda: fake.running == 1)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        response = await client.post(CHAT, json=BODY)

    assert int(response.headers["x-ratelimit-remaining-tokens"]) < 600


async def test_concurrency_limit_of_a_key_holds() -> None:
    fake = FakeEngine()
    fake.gate.clear()
    async with client_of(fake.app(), streams=1) as client:
        running = asyncio.create_task(client.post(CHAT, json=BODY))
        await until(lambda: fake.running == 1)
        refused = await client.post("/v1/completions", json={"prompt": "a"})
        fake.gate.set()
        await running

    assert is_openai_error(refused, 429, "This key may have 1 concurrent requests")
    assert not [name for name in refused.headers if name.startswith("x-ratelimit")]


async def test_keys_caps_are_put_in_or_refused() -> None:
    fake = FakeEngine()
    async with client_of(fake.app(), max_tokens=9, reasoning_effort="low") as client:
        await client.post(CHAT, json={"messages": BODY["messages"], "model": "fake-model"})
        too_many = await client.post(CHAT, json={**BODY, "max_tokens": 10})
        no_json = await client.post(CHAT, content=b'{"max_tokens": NaN}')
        no_object = await client.post(CHAT, content=b"[]")

    assert (fake.requests[0]["max_completion_tokens"], fake.requests[0]["reasoning_effort"]) == (9, "low")
    assert is_openai_error(too_many, 400, "max_tokens must be a whole number of at most 9")
    assert too_many.json()["error"]["param"] == "max_tokens"
    assert is_openai_error(no_json, 400, "not JSON")
    assert is_openai_error(no_object, 400, "JSON object")
    assert len(fake.requests) == 1


async def test_fields_are_checked_by_the_model_that_is_served() -> None:
    fake, served = FakeEngine(), [ServedModel(default_temperature=0), GPT_OSS]
    app = fake.app()
    guard = AdmissionMiddleware(lambda: app, Admission(), MANY, lambda: served.pop(0))
    async with asgi_client(OpenAIApi(Starlette(), guard.app)) as client:
        for _ in range(2):
            await client.post(CHAT, json={**BODY, "n": 2})

    assert [asked.get("top_k") for asked in fake.requests] == [1, None]


async def test_fields_are_checked_before_a_request_takes_a_slot() -> None:
    app = FakeEngineApp()
    async with client_of(app) as client:
        unknown = await client.post(CHAT, json={"max_tokenz": 5, "bad\r\nname": 1, "user": "u"})
        known = await client.post(CHAT, json={"user": "u"})
        refused = await client.post(CHAT, json={"chat_template": "x"})
        counted = await client.post("/v1/messages/count_tokens", json={"thread": {"type": "create"}})

    assert unknown.headers["x-ignored-fields"] == "max_tokenz, bad%0D%0Aname"
    assert "x-ignored-fields" not in known.headers
    assert is_openai_error(refused, 400, "chat_template has no effect")
    assert refused.json()["error"]["param"] == "chat_template"
    assert counted.status_code == 400
    assert len(app.scopes) == 2


async def test_error_of_the_engine_names_the_field_that_the_client_wrote() -> None:
    wrong = {"error": {"message": "max_tokens is too large", "type": "BadRequestError", "param": None, "code": 400}}
    async with asgi_client(ErrorBoundary(guarded(JSONResponse(wrong, 400)), 5)) as client:
        chat = await client.post(CHAT, json={"max_completion_tokens": 9})
        response = await client.post("/openai/v1/responses", json={"max_output_tokens": 9})
        message = await client.post("/v1/messages", json={"max_tokens": 9})
        no_json = await client.post(CHAT, content=b"{nope")

    assert chat.json()["error"]["param"] == "max_completion_tokens"
    assert response.json()["error"]["param"] == "max_output_tokens"
    assert message.json()["error"] == {"type": "invalid_request_error", "message": "max_tokens is too large"}
    assert (no_json.status_code, no_json.json()["error"]["param"]) == (400, None)


async def test_unknown_field_is_refused_with_the_setting() -> None:
    async with client_of(FakeEngineApp(), ServerSettings(unknown_fields="refuse")) as client:
        refused = await client.post(CHAT, json={"max_tokenz": 5})

    assert is_openai_error(refused, 400, "Did you mean max_tokens?")
    assert refused.json()["error"]["param"] == "max_tokenz"


async def test_unknown_field_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async with client_of(FakeEngineApp()) as client:
        for _ in range(3):
            await client.post(CHAT, json={"max_tokenz": 5})

    assert [record.getMessage() for record in caplog.records if "max_tokenz" in record.getMessage()] == [
        "/v1/chat/completions: the field max_tokenz is unknown and has no effect (UNKNOWN_FIELDS=refuse refuses it)"
    ]


async def test_key_cap_of_effort_holds_for_chat_template_kwargs() -> None:
    async with client_of(FakeEngineApp(), reasoning_effort="low") as client:
        refused = await client.post(CHAT, json={"chat_template_kwargs": {"reasoning_effort": "high"}})

    assert is_openai_error(refused, 400, "reasoning_effort must be at most low with this key")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
async def test_engine_reads_the_checked_body(encoding: str) -> None:
    """By FastAPI's parser, as vLLM's application has it: a body that no cap changes goes there as it came."""
    app = FastAPI()

    @app.post(CHAT)
    async def read(body: dict[str, Any]) -> dict[str, Any]:
        return body

    async with client_of(app, max_tokens=9) as client:
        client.headers["Content-Type"] = "application/json"
        within = await client.post(CHAT, content='{"max_tokens": 90, "max_tokens": 9}'.encode(encoding))
        above = await client.post(CHAT, content='{"max_tokens": 9, "max_tokens": 90}'.encode(encoding))

    assert within.json() == {"max_tokens": 9}
    assert is_openai_error(above, 400, "max_tokens must be a whole number of at most 9")


async def test_background_response_takes_no_slot_until_it_is_generated() -> None:
    held = asyncio.Event()

    async def responses(scope: Scope, receive: Receive, send: Send) -> None:
        await held.wait()
        await JSONResponse({"status": "queued"})(scope, receive, send)

    async with client_of(responses, streams=1) as client:
        accepted = [asyncio.create_task(client.post("/v1/responses", json={"background": True})) for _ in range(3)]
        held.set()
        assert [(await each).status_code for each in accepted] == [200, 200, 200]


@pytest.mark.parametrize("path", ["/v1/conversations", "/v1/conversations/conv_1/items", "/v1/responses/input_tokens"])
async def test_request_that_renders_a_prompt_counts_as_one_that_generates(path: str) -> None:
    app = FakeEngineApp()
    async with client_of(app, requests_per_minute=1, streams=1) as client:
        assert (await client.post("/v1/conversations/conv_1", json={"metadata": {}})).status_code == 200
        first = await client.post(path, json={"input": "x"})
        second = await client.post(path, json={"input": "x"})

    assert (first.status_code, second.status_code) == (200, 429)
    assert first.headers["x-ratelimit-remaining-requests"] == "0"
    assert second.json()["error"]["message"].startswith("This key may make 1 requests in 60 s.")


async def test_request_that_renders_a_prompt_has_a_place_in_the_engine_but_is_no_stream() -> None:
    admission, settings = Admission(), ServerSettings(max_openai_requests=1)
    inside: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        inside.append(admission.in_use(engine_rule(1)))
        await JSONResponse({})(scope, receive, send)

    key = OneKey("alice", (digest("s3cret"),), KeyLimits(streams=1))
    guard = AdmissionMiddleware(lambda: app, admission, settings)
    grant = admission.enter(key_rules(key, streams=True))
    async with asgi_client(Authentication(OpenAIApi(Starlette(), guard.app), KeyStore([key]))) as client:
        client.headers["Authorization"] = "Bearer s3cret"
        answers = [await client.post("/v1/conversations") for _ in range(2)]
    grant.leave(0)

    assert [answer.status_code for answer in answers] == [200, 200]
    assert inside == [1, 1]
    assert admission.in_use(engine_rule(1)) == 0
