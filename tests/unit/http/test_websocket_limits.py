"""uvicorn's WebSocket connections with limits, over real sockets."""

from __future__ import annotations

import asyncio
import logging

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gptoss_bento.http.api_server import Parts
from gptoss_bento.http.websocket_limits import limit_websockets
from gptoss_bento.workers.worker_group import WorkerGroup
from tests.fakes import Calls
from tests.unit.http.test_api_server import CONNECTION, serving
from tests.waiting import HANG_S

PATIENCE_S = 0.2


class Talking:
    """An application that sends without end to a client that says something."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send({"type": "websocket.accept"})
        try:
            while (await receive())["type"] == "websocket.receive":
                while True:
                    await send({"type": "websocket.send", "text": "x" * 100_000})
        except OSError:
            pass
        finally:
            self.ended.set()


def parts(app: Talking) -> Parts:
    def configure(config: uvicorn.Config) -> None:
        limit_websockets(config, max_message_bytes=1000, patience_s=PATIENCE_S)

    return Parts(WorkerGroup(), CONNECTION, lambda _: app, Calls(), configure)


async def test_websocket_client_that_does_not_read_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    app = Talking()
    caplog.set_level(logging.INFO)
    async with serving(parts(app)) as (_, url), connect(url.replace("http", "ws"), max_queue=1) as client:
        await client.send("talk")
        await asyncio.wait_for(app.ended.wait(), HANG_S)

    assert "left its events unread for 0.2 s" in caplog.text


async def test_websocket_message_that_is_too_large_closes_the_connection() -> None:
    async with serving(parts(Talking())) as (_, url), connect(url.replace("http", "ws")) as client:
        await client.send("x" * 2000)
        with pytest.raises(ConnectionClosed) as caught:
            await asyncio.wait_for(client.recv(), HANG_S)

    assert caught.value.rcvd
    assert caught.value.rcvd.code == 1009


async def test_websocket_messages_are_not_compressed() -> None:
    async with serving(parts(Talking())) as (_, url), connect(url.replace("http", "ws")) as client:
        assert client.response
        assert "sec-websocket-extensions" not in client.response.headers
