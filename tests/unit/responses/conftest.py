"""/v1/responses in front of a fake of vLLM, for two keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from gptoss_bento.access.authentication import Authentication
from gptoss_bento.access.key_store import KeyStore
from gptoss_bento.config.api_keys import Key, digest
from gptoss_bento.responses.fake_vllm import FakeVllm
from gptoss_bento.responses.routes import ResponsesApi
from gptoss_bento.responses.stored_responses import StoredResponses
from gptoss_bento.state.response_store import ResponseStore
from gptoss_bento.state.store import open_store
from gptoss_bento.state.worker_identity import own_identity
from tests.fakes import asgi_client
from tests.stores import Clock

OWNERS = ("alice", "bob")


@dataclass
class Api:
    """One worker's /v1/responses.

    Attributes:
        vllm: behind it.
        responses: of the worker.
        app: its routes.
        keys: of its clients.
        of: returns the client of a key.
    """

    vllm: FakeVllm
    responses: StoredResponses
    app: ResponsesApi
    keys: KeyStore
    of: Callable[[str], httpx.AsyncClient]

    @property
    def client(self) -> httpx.AsyncClient:
        return self.of("alice")


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    clock, worker = Clock(), own_identity()
    async with open_store(f"sqlite:///{tmp_path / 'jobs.sqlite3'}", tmp_path, clock) as jobs:
        await jobs.renew_lease(worker)
        store = ResponseStore(jobs.database, clock)
        responses = StoredResponses(store, worker.worker_id, 3600, 100, "gpt-oss")
        vllm = FakeVllm()
        responses.start(vllm)
        app = ResponsesApi(vllm, responses)
        keys = KeyStore([Key(name, (digest(name),)) for name in OWNERS])
        yield Api(vllm, responses, app, keys, clients_of(app, keys))
        await responses.stop(5)


def clients_of(api: ResponsesApi, keys: KeyStore) -> Callable[[str], httpx.AsyncClient]:
    """Returns what makes the client of a key."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Authentication(api, keys)(scope, receive, send)

    def of(name: str) -> httpx.AsyncClient:
        client = asgi_client(app)
        client.headers["authorization"] = f"Bearer {name}"
        return client

    return of
