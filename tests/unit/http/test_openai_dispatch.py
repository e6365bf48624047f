from __future__ import annotations

from collections.abc import Collection

import httpx
import httpx2
import openai
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from starlette.types import ASGIApp
from starlette.websockets import WebSocketDisconnect

from gptoss_bento.http.openai_dispatch import OpenAIApi
from tests.fakes import FakeEngineApp, asgi_client
from tests.unit.http.test_paths import ADMINISTRATIVE, PREFIXES


@pytest.fixture
def engine() -> FakeEngineApp:
    return FakeEngineApp()


def service(engine: ASGIApp | None, endpoint_ids: Collection[str] = ()) -> ASGIApp:
    return OpenAIApi(Starlette(), lambda: engine, endpoint_ids)


def is_openai_error(response: httpx.Response, status: int, message: str) -> bool:
    error = response.json()["error"]
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == status
    assert message in error["message"]
    return True


# Handing on


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_engine_sees_its_own_path_whatever_the_prefix(prefix: str, engine: FakeEngineApp) -> None:
    async with asgi_client(service(engine)) as client:
        response = await client.post(f"{prefix}/v1/chat/completions?a=1&b=%20", content=b'{"model": "x"}')

    assert response.status_code == 200
    assert response.json() == {
        "method": "POST",
        "path": "/v1/chat/completions",
        "raw_path": "/v1/chat/completions",
        "root_path": "",
        "query": "a=1&b=%20",
        "body": '{"model": "x"}',
    }


async def test_engine_is_at_its_own_root_wherever_the_service_is_mounted(engine: FakeEngineApp) -> None:
    async with asgi_client(service(engine), root_path="/outer") as client:
        response = await client.get("/openai/version")

    assert (response.json()["path"], response.json()["root_path"]) == ("/version", "")
    assert engine.scopes[0]["app_root_path"] == ""


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("path", ["/tokenize", "/v1/tokenize"])
async def test_tokenizing_reaches_the_route_of_vllm(prefix: str, path: str, engine: FakeEngineApp) -> None:
    async with asgi_client(service(engine)) as client:
        response = await client.post(prefix + path)

    assert response.json()["path"] == response.json()["raw_path"] == "/tokenize"


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_models_are_listed_for_get_and_for_an_empty_post(prefix: str, method: str, engine: FakeEngineApp) -> None:
    async with asgi_client(service(engine)) as client:
        response = await client.request(method, f"{prefix}/v1/models")

    assert (response.json()["method"], response.json()["path"]) == ("GET", "/v1/models")


async def test_model_name_may_hold_slashes(engine: FakeEngineApp) -> None:
    async with asgi_client(service(engine)) as client:
        response = await client.get("/v1/models/openai/gpt-oss-20b")

    assert response.json()["path"] == "/v1/models/openai/gpt-oss-20b"


@pytest.mark.parametrize(
    ("asked", "path", "raw_path"),
    [
        ("/v1/models/a%20b", "/v1/models/a b", "/v1/models/a%20b"),
        ("/openai/v1/models/%C3%A9", "/v1/models/é", "/v1/models/%C3%A9"),
        ("/v1/models/100%25", "/v1/models/100%", "/v1/models/100%25"),
        ("/v1/models/a%3Fb", "/v1/models/a?b", "/v1/models/a%3Fb"),
    ],
)
async def test_raw_path_is_encoded_as_clients_send_it(
    asked: str, path: str, raw_path: str, engine: FakeEngineApp
) -> None:
    async with asgi_client(service(engine)) as client:
        response = await client.get(asked)

    assert (response.json()["path"], response.json()["raw_path"]) == (path, raw_path)


async def test_preflight_is_answered_by_the_engine(engine: FakeEngineApp) -> None:
    async with asgi_client(service(engine)) as client:
        response = await client.options("/openai/v1/chat/completions")

    assert response.json()["method"] == "OPTIONS"


async def test_headers_reach_the_engine(engine: FakeEngineApp) -> None:
    async with asgi_client(service(engine)) as client:
        await client.post("/v1/completions", headers={"X-Request-Id": "r1"})

    assert (b"x-request-id", b"r1") in engine.scopes[0]["headers"]


# Refusing


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_unknown_route_is_404_in_the_openai_shape(prefix: str, engine: FakeEngineApp) -> None:
    async with asgi_client(service(engine)) as client:
        response = await client.post(f"{prefix}/v1/unknown")

    assert is_openai_error(response, 404, f"{prefix}/v1/unknown")
    assert engine.scopes == []


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/models", "GET, POST"),
        ("POST", "/v1/models/x", "GET"),
        ("PUT", "/openai/v1/responses", "POST"),
        ("PUT", "/v1/responses/r1", "GET, DELETE"),
        ("GET", "/v2/x/openai/v1/responses/r1/cancel", "POST"),
        ("POST", "/version", "GET"),
    ],
)
async def test_wrong_method_is_405_and_names_the_right_ones(
    method: str, path: str, allowed: str, engine: FakeEngineApp
) -> None:
    async with asgi_client(service(engine)) as client:
        response = await client.request(method, path)

    assert is_openai_error(response, 405, f"takes {allowed}, not {method}")
    assert response.headers["allow"] == allowed
    assert engine.scopes == []


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_engine_that_is_missing_is_a_503_with_retry_after(prefix: str) -> None:
    async with asgi_client(service(None)) as client:
        response = await client.post(f"{prefix}/v1/chat/completions")

    assert is_openai_error(response, 503, "/readyz")
    assert response.headers["retry-after"] == "5"


@pytest.mark.parametrize(("method", "path", "status"), [("POST", "/v1/unknown", 404), ("GET", "/v1/completions", 405)])
async def test_wrong_request_is_refused_even_without_an_engine(method: str, path: str, status: int) -> None:
    async with asgi_client(service(None)) as client:
        response = await client.request(method, path)

    assert response.status_code == status


async def test_engine_that_comes_later_is_used(engine: FakeEngineApp) -> None:
    engines: list[ASGIApp] = []
    app = OpenAIApi(Starlette(), lambda: engines[0] if engines else None)

    async with asgi_client(app) as client:
        before = await client.get("/v1/models")
        engines.append(engine)
        after = await client.get("/v1/models")

    assert (before.status_code, after.status_code) == (503, 200)


@pytest.mark.parametrize("path", ADMINISTRATIVE)
async def test_administrative_routes_never_reach_the_engine(path: str, engine: FakeEngineApp) -> None:
    async with asgi_client(service(engine)) as client:
        answers = [await client.request(method, prefix + path) for prefix in PREFIXES for method in ("GET", "POST")]

    assert {answer.status_code for answer in answers} == {404}
    assert engine.scopes == []


@pytest.mark.parametrize("path", ["/v1/models%2F..%2F..%2Fpause", "/v1/%2e%2e/pause", "/openai//pause", "/%70ause"])
async def test_encoded_paths_never_reach_administrative_routes(path: str, engine: FakeEngineApp) -> None:
    async with asgi_client(service(engine)) as client:
        await client.post(path)

    assert [scope["path"] for scope in engine.scopes] == []


@pytest.mark.parametrize(("endpoint", "status"), [("mine", 200), ("other", 404)])
async def test_endpoint_ids_that_are_not_named_are_refused(endpoint: str, status: int, engine: FakeEngineApp) -> None:
    async with asgi_client(service(engine, {"mine"})) as client:
        response = await client.get(f"/v2/{endpoint}/openai/v1/models")

    assert response.status_code == status
    assert len(engine.scopes) == (status == 200)


async def test_paths_of_others_are_left_to_the_service(engine: FakeEngineApp) -> None:
    async with asgi_client(service(engine)) as client:
        response = await client.get("/chat")

    assert (response.status_code, response.text) == (404, "Not Found")


def test_websockets_are_not_taken(engine: FakeEngineApp) -> None:
    with pytest.raises(WebSocketDisconnect), TestClient(service(engine)).websocket_connect("/v1/realtime"):
        pass
    assert engine.scopes == []


# What a client makes of it


@pytest.mark.parametrize(
    ("engine_is_there", "path", "expected"),
    [(False, "/v1", openai.InternalServerError), (True, "/v2/other/openai/v1", openai.NotFoundError)],
)
async def test_openais_sdk_reads_the_errors(
    engine_is_there: bool, path: str, expected: type[openai.APIStatusError], engine: FakeEngineApp
) -> None:
    app = service(engine if engine_is_there else None, {"mine"})
    transport = httpx2.ASGITransport(app)  # openai has moved on to httpx2
    http_client = httpx2.AsyncClient(transport=transport)
    async with openai.AsyncOpenAI(
        base_url=f"http://test{path}", api_key="none", max_retries=0, http_client=http_client
    ) as sdk:
        with pytest.raises(expected) as caught:
            await sdk.models.list()

    assert isinstance(caught.value.body, dict)
    assert caught.value.body["message"]
