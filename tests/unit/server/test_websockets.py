"""WebSocket mode in a worker that has no engine yet, or stops."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from gptoss_bento.access.authentication import Authentication
from gptoss_bento.access.key_store import KeyStore
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.server.websockets import WithWebSockets, websocket_mode
from gptoss_bento.server.worker import Worker
from tests.fakes import Calls
from tests.websockets import Connection


@pytest.mark.parametrize(("stops", "words"), [(False, "The engine is not ready."), (True, "The server is stopping")])
async def test_websocket_without_an_engine_is_refused_for_now(stops: bool, words: str) -> None:
    worker, keys = Worker(), KeyStore()
    if stops:
        worker.graceful_shutdown._end = Calls()
    app = WithWebSockets(Calls(), Authentication(websocket_mode(worker, ServerSettings(), keys), keys))
    async with Connection(app) as connection:
        assert connection.status == HTTPStatus.SERVICE_UNAVAILABLE
        assert (await connection.body())["error"]["message"].startswith(words)
