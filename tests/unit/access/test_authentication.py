"""Keys: which requests pass, and how the others are refused."""

from __future__ import annotations

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from gptoss_bento.access.authentication import Authentication, key_of
from gptoss_bento.access.key_store import KeyStore
from gptoss_bento.config.api_keys import listed_keys


async def ask(keys: tuple[str, ...], path: str, headers: dict[str, str]) -> httpx.Response:
    app = Authentication(PlainTextResponse("through"), KeyStore(listed_keys(keys)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
        return await client.get(path, headers=headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer second"},
        {"authorization": "bearer second"},
        {"Authorization": "BEARER  second "},
        {"Authorization": "second"},
    ],
)
async def test_right_key_passes_in_every_form(headers: dict[str, str]) -> None:
    assert (await ask(("first", "second"), "/v1/models", headers)).text == "through"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic second"},
        {"Authorization": "first,second"},
        {"x-api-key": "second"},
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/docs.json", "/nothing", "/schema.json", "/"])
async def test_key_that_is_wrong_gets_the_same_401(path: str, headers: dict[str, str]) -> None:
    answer = await ask(("first", "second"), path, headers)
    reference = await ask(("first", "second"), path, {})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.content == reference.content


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/ping"])
async def test_probes_need_no_key(path: str) -> None:
    assert (await ask(("first",), path, {})).text == "through"


async def test_server_without_keys_is_open() -> None:
    assert (await ask((), "/v1/models", {})).text == "through"


@pytest.mark.parametrize("path", ["/v1/messages", "/openai/v1/messages", "/v1/messages/count_tokens"])
async def test_anthropics_header_counts_on_anthropics_routes(path: str) -> None:
    assert (await ask(("first",), path, {"x-api-key": "first"})).text == "through"


async def test_refusal_has_the_shape_of_the_api_called() -> None:
    assert (await ask(("first",), "/openai/v1/models", {})).json()["error"]["code"] == 401
    for path in ("/metrics", "/v2/local/run", "/run"):
        assert isinstance((await ask(("first",), path, {})).json()["error"], str)


async def test_operator_decides_what_is_public() -> None:
    app = Authentication(PlainTextResponse("through"), KeyStore(listed_keys(["key"])), public=("/metrics",))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
        answers = [(await client.get(path)).status_code for path in ("/metrics", "/livez")]

    assert answers == [200, 401]


async def test_key_that_is_empty_is_refused_and_a_closed_store_refuses_all() -> None:
    app = Authentication(PlainTextResponse("through"), KeyStore(closed=True))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
        answers = [await client.get("/v1/models", headers=headers) for headers in ({}, {"Authorization": "key"})]

    assert [answer.status_code for answer in answers] == [401, 401]


async def test_key_of_a_request_is_known_to_the_application() -> None:
    names = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        key = key_of(scope)
        names.append(key and key.name)
        await PlainTextResponse("through")(scope, receive, send)

    guarded = Authentication(app, KeyStore(listed_keys(["first", "second"])))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url="http://server") as client:
        await client.get("/v1/models", headers={"Authorization": "second"})
        await client.get("/livez", headers={"Authorization": "second"})

    assert names == ["key-2", None]


async def test_websocket_without_a_key_is_closed_before_it_opens() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    app = Authentication(PlainTextResponse("through"), KeyStore(listed_keys(["key"])))
    await app({"type": "websocket", "path": "/v1/realtime", "headers": []}, receive, send)

    assert sent == [{"type": "websocket.close", "code": 1008}]
