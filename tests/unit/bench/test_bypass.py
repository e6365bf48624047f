"""The way beside the guards, which only the benchmark's own service has."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.types import ASGIApp

from gptoss_bento.access.admission import Admission
from gptoss_bento.access.admission_middleware import AdmissionMiddleware
from gptoss_bento.access.key_store import KeyStore
from gptoss_bento.bench.bypass import QUERY, BypassedAuthentication, bypassed
from gptoss_bento.config.api_keys import Key, KeyLimits, digest
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.http.openai_dispatch import OpenAIApi
from tests.fakes import FakeEngineApp, asgi_client

CHAT = "/v1/chat/completions"
BODY = {"messages": [], "max_tokens": 5}


class Service:
    """The way of a request as `bypassed_service.py` puts it together."""

    def __init__(self) -> None:
        self.engine: FakeEngineApp | None = FakeEngineApp()
        guard = AdmissionMiddleware(lambda: self.engine, Admission(), ServerSettings())
        ring = KeyStore([Key("alice", (digest("s3cret"),), KeyLimits(requests_per_minute=60))])
        self.app: ASGIApp = BypassedAuthentication(
            OpenAIApi(Starlette(), bypassed(guard.app, lambda: self.engine)), ring
        )

    async def ask(self, query: str = "", key: str = "s3cret") -> httpx.Response:
        async with asgi_client(self.app) as client:
            return await client.post(f"{CHAT}{query}", json=BODY, headers={"Authorization": f"Bearer {key}"})


@pytest.fixture
def service() -> Service:
    return Service()


async def test_request_passes_the_guards(service: Service) -> None:
    answer = await service.ask()

    assert (answer.status_code, answer.headers["x-ratelimit-remaining-requests"]) == (200, "59")
    assert (await service.ask(key="wrong")).status_code == 401


async def test_request_with_the_marker_bypasses_keys_and_admission(service: Service) -> None:
    for _ in range(3):
        answer = await service.ask(f"?{QUERY}", key="wrong")
        assert answer.status_code == 200
        assert not [name for name in answer.headers if name.startswith("x-ratelimit")]

    assert (await service.ask()).headers["x-ratelimit-remaining-requests"] == "59"


@pytest.mark.parametrize("query", [f"?{QUERY}=1", f"?a&{QUERY}", "?Unguarded"])
async def test_request_with_another_query_bypasses_nothing(service: Service, query: str) -> None:
    assert (await service.ask(query, key="wrong")).status_code == 401


async def test_request_without_an_engine_gets_no_answer(service: Service) -> None:
    service.engine = None

    assert [(await service.ask(query)).status_code for query in ("", f"?{QUERY}")] == [503, 503]
