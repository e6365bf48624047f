"""Keys: who may pass, and what everybody else is told."""

from __future__ import annotations

import httpx
import pytest
from starlette.responses import PlainTextResponse

from gptoss_bento.http.authentication import Authentication


async def ask(keys: tuple[str, ...], path: str, headers: dict[str, str]) -> httpx.Response:
    app = Authentication(PlainTextResponse("through"), keys)
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
async def test_a_right_key_passes_in_every_form(headers: dict[str, str]) -> None:
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
async def test_everything_else_gets_the_same_401(path: str, headers: dict[str, str]) -> None:
    answer = await ask(("first", "second"), path, headers)
    reference = await ask(("first", "second"), path, {})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.content == reference.content


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/ping"])
async def test_probes_need_no_key(path: str) -> None:
    assert (await ask(("first",), path, {})).text == "through"


async def test_without_keys_the_server_is_open() -> None:
    assert (await ask((), "/v1/models", {})).text == "through"


@pytest.mark.parametrize("path", ["/v1/messages", "/openai/v1/messages", "/v1/messages/count_tokens"])
async def test_anthropics_header_counts_on_anthropics_routes(path: str) -> None:
    assert (await ask(("first",), path, {"x-api-key": "first"})).text == "through"


async def test_the_refusal_has_the_shape_of_the_api_called() -> None:
    assert (await ask(("first",), "/openai/v1/models", {})).json()["error"]["code"] == 401
    for path in ("/metrics", "/v2/local/run", "/run"):
        assert isinstance((await ask(("first",), path, {})).json()["error"], str)


async def test_the_operator_decides_what_is_public() -> None:
    app = Authentication(PlainTextResponse("through"), ["key"], public=("/metrics",))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
        answers = [(await client.get(path)).status_code for path in ("/metrics", "/livez")]

    assert answers == [200, 401]
