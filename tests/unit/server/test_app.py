"""What server/app.py puts together, and what other workers pass on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from gptoss_bento.access.authentication import Authentication, key_of
from gptoss_bento.access.key_store import KeyStore
from gptoss_bento.access.runpod_limits import RunPodLimits
from gptoss_bento.config.api_keys import Key, KeyLimits, digest
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.http.errors import BrokenStreamError
from gptoss_bento.http.fields.served_model import GPT_OSS, ServedModel
from gptoss_bento.http.openai_dispatch import OpenAIApi
from gptoss_bento.http.probes import Probes
from gptoss_bento.http.shutdown_gate import ShutdownGate
from gptoss_bento.server import app
from gptoss_bento.server.openapi import Description
from gptoss_bento.server.worker import Worker
from gptoss_bento.workers.graceful_shutdown import GracefulShutdown
from gptoss_bento.workers.worker_group import WorkerGroup, make_shared_folder
from tests.fakes import asgi_client


@dataclass
class EngineWithResponse:
    """As much of an engine as an answer that is passed on asks for."""

    served_model: ServedModel = GPT_OSS
    scopes: list[Scope] = field(default_factory=list)
    shutdown: GracefulShutdown | None = None
    in_flight: list[int] = field(default_factory=list)

    def holds_response(self, response_id: str) -> bool:
        return response_id == "resp_1"

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        assert self.shutdown
        self.in_flight.append(self.shutdown.in_flight)
        if scope["query_string"] == b"breaks":
            raise BrokenStreamError(HTTPStatus.SERVICE_UNAVAILABLE, "It broke.")
        await JSONResponse({"by": "it"})(scope, receive, send)


@dataclass
class PassedOn:
    """One of two workers, as the other one reaches it."""

    worker: Worker
    engine: EngineWithResponse
    client: httpx.AsyncClient


@pytest.fixture
def passed_on(tmp_path: Path) -> PassedOn:
    make_shared_folder(tmp_path / "group", 2)
    keys = KeyStore([Key("first", (digest("k3y"),), KeyLimits())])
    worker = Worker(group=WorkerGroup(1, 2, tmp_path / "group"), keys=keys)
    parts = app.server_parts(worker, keys, ServerSettings())
    assert parts.group is worker.group
    assert parts.for_others
    engine = EngineWithResponse(shutdown=worker.graceful_shutdown)
    worker.engine = engine  # type: ignore[assignment]
    client = asgi_client(parts.for_others)
    client.headers["authorization"] = "Bearer k3y"
    return PassedOn(worker, engine, client)


def test_worker_that_is_alone_has_nothing_for_others() -> None:
    assert app.server_parts(Worker(), KeyStore(), ServerSettings()).for_others is None


async def test_routed_request_has_its_key_and_counts_for_a_shutdown(passed_on: PassedOn) -> None:
    for path in ("/v1/responses/resp_1", "/v1/responses/resp_1/cancel"):
        method = "POST" if path.endswith("cancel") else "GET"
        assert (await passed_on.client.request(method, path)).json() == {"by": "it"}

    assert passed_on.engine.in_flight == [0, 1]
    assert passed_on.worker.graceful_shutdown.in_flight == 0
    key = key_of(passed_on.engine.scopes[0])
    assert key is not None
    assert key.name == "first"


async def test_routed_request_needs_a_key_but_the_lookup_does_not(passed_on: PassedOn) -> None:
    passed_on.client.headers["authorization"] = "Bearer other"

    assert (await passed_on.client.get("/v1/responses/resp_1")).status_code == 401
    assert [(await passed_on.client.post("/holds", content=name)).status_code for name in ("resp_1", "resp_2")] == [
        200,
        404,
    ]
    assert passed_on.engine.scopes == []


async def test_shutdown_still_answers_lookups(passed_on: PassedOn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GracefulShutdown, "begun", True)

    assert (await passed_on.client.get("/v1/responses/resp_1")).status_code == 200
    assert (await passed_on.client.post("/v1/responses", json={})).status_code == 503
    assert (await passed_on.client.post("/holds", content="resp_1")).status_code == 200


async def test_lookup_without_an_engine_is_unknown(passed_on: PassedOn) -> None:
    passed_on.worker.engine = None

    assert (await passed_on.client.post("/holds", content="resp_1")).status_code == 503
    assert (await passed_on.client.get("/v1/responses/resp_1")).status_code == 503


async def test_answer_that_breaks_ends_with_an_error_event(passed_on: PassedOn) -> None:
    reply = await passed_on.client.get("/v1/responses/resp_1?breaks")

    assert (reply.status_code, reply.json()["error"]["message"]) == (503, "It broke.")


@pytest.mark.parametrize("path", ["/livez", "/metrics", "/run", "/docs.json"])
async def test_routes_of_the_service_are_hidden_from_other_workers(passed_on: PassedOn, path: str) -> None:
    assert (await passed_on.client.get(path)).status_code == 404


# What service.py declares


class FakeService:
    """A fake of BentoML's service."""

    openapi_spec = None

    def add_asgi_middleware(self, middleware_cls: Callable[..., Any], **options: Any) -> None:
        raise AssertionError(middleware_cls, options)


def assembly(**settings: Any) -> app.Assembly:
    worker, server = Worker(), ServerSettings(**settings)
    return app.Assembly("demo", {}, app.build_app(worker, server), worker, KeyStore(), server)


def test_middlewares_ask_for_a_key_before_anything_of_the_service_answers() -> None:
    layers = [middleware.layer for middleware in assembly().middlewares(FakeService())]

    assert layers == [Authentication, Probes, Description, ShutdownGate, OpenAIApi]


def test_middlewares_of_settings_are_around_and_behind_the_key() -> None:
    found = assembly(cors_origins=("https://a.example",), rate_limit=True).middlewares(FakeService())

    assert [middleware.layer for middleware in found][:4] == [CORSMiddleware, Authentication, RunPodLimits, Probes]


def test_middlewares_can_all_be_made_with_their_options() -> None:
    for middleware in assembly(cors_origins=("*",), rate_limit=True).middlewares(FakeService()):
        middleware.layer(Router(), **middleware.options)
