"""uvicorn's WebSocket connections with limits, over real sockets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from gptoss_bento.http import websocket_connection
from gptoss_bento.http.api_server import Parts
from gptoss_bento.http.body_memory import BodyMemory
from gptoss_bento.http.websocket_limits import limit_websockets
from gptoss_bento.workers.worker_group import WorkerGroup
from tests.fakes import Calls
from tests.unit.http.test_api_server import CONNECTION, serving
from tests.waiting import HANG_S, until

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


class Leaving(Talking):
    """One that ends while a little of what it has sent is unread, too little to pause writing.

    Attributes:
        left: bytes that its connection gives.
    """

    def __init__(self) -> None:
        super().__init__()
        self.left: Callable[[], int] = lambda: 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        while not self.left():
            await send({"type": "websocket.send", "text": "x" * 10_000})
        self.ended.set()


def parts(app: ASGIApp, patience_s: float = PATIENCE_S) -> Parts:
    def configure(config: uvicorn.Config) -> None:
        limit_websockets(config, max_message_bytes=1000, patience_s=patience_s)

    return Parts(WorkerGroup(), CONNECTION, lambda _: app, Calls(), configure)


async def test_websocket_client_that_does_not_read_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    app = Talking()
    caplog.set_level(logging.INFO)
    async with serving(parts(app)) as (_, url), connect(url.replace("http", "ws"), max_queue=1) as client:
        await client.send("talk")
        await asyncio.wait_for(app.ended.wait(), HANG_S)

    assert "left its events unread for 0.2 s" in caplog.text


async def test_websocket_of_a_client_that_does_not_read_ends_after_its_application() -> None:
    app = Leaving()
    async with (
        serving(parts(app)) as (server, url),
        connect(url.replace("http", "ws"), max_queue=1, close_timeout=PATIENCE_S) as client,
    ):
        (connection,) = server.server_state.connections
        app.left = connection.transport.get_write_buffer_size
        await client.send("talk")
        await asyncio.wait_for(app.ended.wait(), HANG_S)
        assert connection.transport.get_write_buffer_size() > 0

        await until(lambda: not server.server_state.connections)


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


async def without_end(*pieces: str) -> AsyncIterator[str]:
    """A message in fragments, of which the last never comes."""
    for piece in pieces:
        yield piece
    await asyncio.Event().wait()


async def close_of(client: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as caught:
        await asyncio.wait_for(client.recv(), HANG_S)
    assert caught.value.rcvd
    return caught.value.rcvd.code, caught.value.rcvd.reason


async def test_websocket_message_that_never_ends_closes_the_connection() -> None:
    async with serving(parts(Talking())) as (_, url), connect(url.replace("http", "ws")) as client:
        sending = asyncio.create_task(client.send(without_end("a")))

        assert await close_of(client) == (1008, "A message must arrive within 0.2 s.")
        sending.cancel()


@pytest.mark.parametrize("pieces", [["x" * 200], [""] * 4])
async def test_websocket_message_on_its_way_for_longest_is_evicted(
    monkeypatch: pytest.MonkeyPatch, pieces: list[str]
) -> None:
    held = BodyMemory(0, bodies=0.5)  # 500 bytes
    monkeypatch.setattr(websocket_connection, "bodies", held)
    async with serving(parts(Talking(), HANG_S)) as (_, url):
        async with connect(url.replace("http", "ws")) as one, connect(url.replace("http", "ws")) as other:
            sending = [asyncio.create_task(one.send(without_end(*pieces)))]
            await until(lambda: held.all > 0)
            sending.append(asyncio.create_task(other.send(without_end("y" * 400))))

            code, reason = await close_of(one)
            for task in sending:
                task.cancel()
            assert (code, held.all) == (1013, 464)
        await until(lambda: held.all == 0)

    assert reason.startswith("Too many large messages")
