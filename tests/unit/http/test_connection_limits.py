"""Clients that keep a connection waiting, on a real uvicorn."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from gptoss_bento.http import connection_limits
from gptoss_bento.http.body import ARRIVAL
from gptoss_bento.http.connection_limits import BoundedConnection, bounded
from tests.waiting import HANG_S

PATIENCE_S = 0.2


@pytest.fixture(autouse=True)
def _bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedConnection, "max_head_bytes", 2048)
    monkeypatch.setattr(BoundedConnection, "patience_s", PATIENCE_S)


async def answer(_: Scope, __: Receive, send: Send) -> None:
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def served(
    app: ASGIApp = answer, keep_alive_s: float = 1, buffered: int = 0, protocol: type = BoundedConnection
) -> AsyncIterator[int]:
    """The port of a server, whose system keeps so many bytes of answers, or as many as it likes."""
    config = uvicorn.Config(app, http=protocol, lifespan="off", log_config=None)
    config.timeout_keep_alive = keep_alive_s  # type: ignore[assignment]  # a loop takes fractions too
    server = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", 0))
    if buffered:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffered)
    task = asyncio.create_task(server._serve([listening]))
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        await task
        listening.close()


async def talk(port: int, *pieces: bytes, pause_s: float = 0.0) -> bytes:
    """Sends pieces, listening meanwhile, and gives all that comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = bytearray()

    async def listen() -> None:
        with suppress(ConnectionError):
            while piece := await reader.read(65_536):
                got.extend(piece)

    listening = asyncio.create_task(listen())
    with suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)
    async with asyncio.timeout(HANG_S):
        await listening
    writer.close()
    return bytes(got)


GET = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n"
POST = b"POST / HTTP/1.1\r\nhost: a\r\n"
ONE = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


async def test_usual_request_is_answered_also_in_pieces() -> None:
    async with served() as port:
        assert (await talk(port, GET + b"\r\n")).endswith(b"ok")
        assert (await talk(port, *(bytes([byte]) for byte in GET + b"\r\n"))).endswith(b"ok")
        large = b"x: " + b"y" * 1900 + b"\r\n"
        assert (await talk(port, GET + large + b"\r\n")).endswith(b"ok")


async def events(_: Scope, __: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for piece in (b"data: 1\n\n", b"", b"data: 2\n\n"):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})


@pytest.mark.parametrize("keep_alive", [b"", b"connection: keep-alive\r\n"])
async def test_client_of_http_1_0_gets_a_stream_without_chunks(keep_alive: bytes) -> None:
    async with served(events) as port:
        old = await talk(port, b"GET / HTTP/1.0\r\n" + keep_alive + b"\r\n")
        new = await talk(port, GET + b"\r\n")

    head, _, body = old.partition(b"\r\n\r\n")
    assert body == b"data: 1\n\ndata: 2\n\n"
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert b"transfer-encoding: chunked" in new


async def test_client_of_http_1_0_gets_an_answer_of_known_length_with_it() -> None:
    async with served() as port:
        got = await talk(port, b"GET / HTTP/1.0\r\n\r\n")

    assert b"content-length: 2\r\n" in got
    assert got.endswith(b"\r\n\r\nok")


async def test_scope_knows_whether_the_body_has_arrived() -> None:
    complete: list[bool] = []

    async def note(scope: Scope, receive: Receive, send: Send) -> None:
        complete.append(scope[ARRIVAL].is_complete)
        while (await receive()).get("more_body"):
            pass
        complete.append(scope[ARRIVAL].is_complete)
        await answer(scope, receive, send)

    head = GET + b"content-length: 2\r\n\r\n"
    async with served(note) as port:
        await talk(port, head + b"ab")
        await talk(port, head + b"a", b"b", pause_s=0.02)
        await talk(port, GET + b"\r\n")
    assert complete == [True, True, False, True, True, True]


async def test_connection_may_bring_many_requests_that_are_large_together() -> None:
    async with served() as port:
        one = b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 1000 + b"\r\n\r\n"
        assert (await talk(port, one, one, one, GET + b"\r\n", pause_s=0.01)).count(b"ok") == 4


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(GET + b"x: " + b"y" * 3000 + b"\r\n\r\n", id="value"),
        pytest.param(b"GET /" + b"y" * 3000 + b" HTTP/1.1\r\n\r\n", id="path"),
        pytest.param(GET + b"".join(b"x%d: y\r\n" % i for i in range(300)) + b"\r\n", id="number"),
    ],
)
async def test_head_that_is_too_large_is_a_431(head: bytes) -> None:
    async with served() as port:
        assert (await talk(port, head)).startswith(b"HTTP/1.1 431 ")


async def test_header_without_end_is_refused_before_it_is_complete() -> None:
    async with served() as port:
        assert (await talk(port, GET + b"x: ", *[b"y" * 1000] * 10, pause_s=0.005)).startswith(b"HTTP/1.1 431 ")


CHUNKED = b"transfer-encoding: chunked\r\n\r\n"


async def read(_: Scope, receive: Receive, send: Send) -> None:
    """Answers how long the body was."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message["more_body"]
    text = b"%d bytes" % size
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text})


async def stream(_: Scope, receive: Receive, send: Send) -> None:
    """An answer that goes on until the client is gone."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass


BESIDE_A_BODY = [
    pytest.param(POST + CHUNKED + b"1\r\nx\r\n0\r\nx-t: ", b"y" * 500, id="a trailer's value"),
    pytest.param(POST + CHUNKED + b"1\r\nx\r\n0\r\nx", b"y" * 500, id="a trailer's name"),
    pytest.param(POST + CHUNKED + b"1\r\nx\r\n0\r\n", b"x-t: " + b"y" * 500 + b"\r\n", id="trailers"),
    pytest.param(POST + CHUNKED + b"1\r\nx\r\n1;e=", b"y" * 500, id="a chunk's extension"),
]
NO_REQUEST = pytest.param(ONE, b"\r\n" * 250, id="empty lines")


@pytest.mark.parametrize(("request_", "further"), BESIDE_A_BODY)
async def test_trailers_and_chunk_extensions_are_bounded_as_a_head(
    request_: bytes, further: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedConnection, "patience_s", 60)
    async with served(read, keep_alive_s=60) as port:
        assert (await talk(port, request_, *[further] * 8, pause_s=0.02)).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("app", [answer, stream])
@pytest.mark.parametrize(("request_", "further"), [*BESIDE_A_BODY, NO_REQUEST])
async def test_trailers_and_chunk_extensions_are_bounded_also_after_and_during_an_answer(
    app: ASGIApp, request_: bytes, further: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedConnection, "patience_s", 60)
    async with served(app, keep_alive_s=60) as port:
        answered = await talk(port, request_, *[further] * 8, pause_s=0.02)
    assert answered.startswith(b"HTTP/1.1 200 ")
    assert answered.count(b"HTTP/") == 1


@pytest.mark.parametrize(
    "body",
    [
        pytest.param([b"content-length: 600000\r\n\r\n" + b"x" * 300_000, b"x" * 300_000], id="two large pieces"),
        pytest.param([CHUNKED + b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n"], id="small chunks"),
        pytest.param([CHUNKED, *[b"5;e=%s\r\nxxxxx\r\n" % (b"y" * 500)] * 10, b"0\r\n\r\n"], id="extensions"),
        pytest.param([CHUNKED + b"927C0\r\n", *[b"x" * 60_000] * 10, b"\r\n0\r\nx-t: y\r\n\r\n"], id="a trailer"),
    ],
)
async def test_body_itself_is_not_bounded_as_a_head(body: list[bytes]) -> None:
    sizes = [b"600000 bytes", b"100000 bytes", b"50 bytes"]
    async with served(read) as port:
        body[0] = POST + body[0]
        answered = await talk(port, *body[:-1], body[-1] + GET + b"\r\n", pause_s=0.005)
    assert answered.endswith(b"0 bytes")
    assert sum(answered.count(size) for size in sizes) == 1


async def test_body_that_is_not_read_holds_back_its_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedConnection, "patience_s", 60)
    received = 0

    class Counting(BoundedConnection):
        def on_body(self, body: bytes) -> None:
            nonlocal received
            received += len(body)
            super().on_body(body)

    async def unread(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok", "more_body": True})
        await asyncio.sleep(0.5)

    get = b"GET / HTTP/1.1\r\nhost: a\r\n" + CHUNKED + b"2000000\r\n"
    async with served(unread, protocol=Counting) as port, asyncio.timeout(HANG_S):
        await talk(port, get, *[b"x" * 65_536] * 512)
    assert 0 < received < 2**20


async def test_head_that_is_too_large_is_refused_in_no_other_answer() -> None:
    async with served(stream) as port:
        answered = await talk(port, POST + b"\r\n", GET + b"x: " + b"y" * 3000 + b"\r\n\r\n", pause_s=0.02)
    assert b"200 OK" in answered
    assert b"431" not in answered


async def test_bytes_that_are_not_http_are_still_a_400() -> None:
    async with served() as port:
        assert (await talk(port, b"nonsense\r\n\r\n")).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("beginning", [b"", b"GE", GET])
async def test_head_that_never_ends_is_not_waited_for(beginning: bytes) -> None:
    async with served() as port, asyncio.timeout(HANG_S):
        assert await talk(port, beginning) == b""


SIZED = b"content-length: 1000000\r\n\r\n"


@pytest.mark.parametrize(
    ("request_", "further"),
    [
        pytest.param(POST + SIZED, b"x", id="one byte of its body"),
        pytest.param(POST + b"transfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n", id="one chunk of its body"),
        pytest.param(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"\r\n", id="an empty line"),
    ],
)
@pytest.mark.parametrize("count", [1, 6])
async def test_bytes_without_a_request_do_not_hold_the_connection(request_: bytes, further: bytes, count: int) -> None:
    async with served(keep_alive_s=PATIENCE_S) as port, asyncio.timeout(HANG_S):
        answered = await talk(port, request_, *[further] * count, pause_s=PATIENCE_S / 4)
    assert answered.count(b"HTTP/1.1 200 ") == 1


async def test_body_that_was_answered_unread_may_end_and_another_request_follow() -> None:
    body = [b"x" * 100_000] * 10
    async with served() as port:
        assert (await talk(port, POST + SIZED, b"", *body, GET + b"\r\n", pause_s=0.01)).count(b"ok") == 2


async def test_body_that_was_answered_unread_is_read_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_limits, "DISCARDED_BYTES", 10_000)
    monkeypatch.setattr(BoundedConnection, "patience_s", 60)
    async with served(keep_alive_s=60) as port, asyncio.timeout(HANG_S):
        assert (await talk(port, POST + SIZED, *[b"x" * 5_000] * 5, pause_s=0.02)).count(b"ok") == 1


async def test_connection_that_is_idle_is_kept_for_the_servers_keep_alive() -> None:
    one = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
    async with served() as port:
        assert (await talk(port, one, GET + b"\r\n", pause_s=2 * PATIENCE_S)).count(b"ok") == 2


@pytest.mark.parametrize("more", [b"", b"nonsense\r\n\r\n"])
async def test_connection_that_is_closed_does_not_wait_for_its_last_bytes_to_be_read(more: bytes) -> None:
    """What waits is too little for uvicorn to pause for."""

    async def long_answer(_: Scope, __: Receive, send: Send) -> None:
        close = [] if more else [(b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": close})
        await send({"type": "http.response.body", "body": b"x" * 50_000})

    async with served(long_answer, buffered=1) as port, client_with_little_room(port) as (reader, writer):
        writer.write(POST + b"\r\n")
        await asyncio.sleep(PATIENCE_S / 2)
        writer.write(more)
        await asyncio.sleep(3 * PATIENCE_S)
        async with asyncio.timeout(HANG_S):
            assert len(await reader.read()) < 50_000


@pytest.mark.parametrize("begun", [b"", b"G"])
async def test_answer_that_breaks_off_does_not_wait_for_its_last_bytes_to_be_read(begun: bytes) -> None:
    async def broken(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 50_000, "more_body": True})
        raise RuntimeError

    async with served(broken, buffered=1) as port, client_with_little_room(port) as (reader, writer):
        writer.write(POST + b"\r\n" + begun)
        await asyncio.sleep(3 * PATIENCE_S)
        async with asyncio.timeout(HANG_S):
            assert len(await reader.read()) < 50_000


@asynccontextmanager
async def client_with_little_room(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """It buffers nothing to speak of of what it does not read."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=client, limit=1)
    yield reader, writer
    writer.close()


async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(2 * PATIENCE_S)
    await answer(scope, receive, send)


async def test_request_may_take_as_long_as_it_takes() -> None:
    async with served(slow) as port:
        assert (await talk(port, GET + b"\r\n")).endswith(b"ok")


@pytest.mark.parametrize("begun", [b"G", ONE + b"G", ONE + ONE[:-2]])
async def test_head_of_the_next_request_does_not_end_the_present_one(begun: bytes) -> None:
    complete = begun.count(ONE) + 1
    async with served(slow) as port, asyncio.timeout(HANG_S):
        assert (await talk(port, ONE + begun)).count(b"ok") == complete


async def test_head_of_the_next_request_may_end_after_the_present_one(monkeypatch: pytest.MonkeyPatch) -> None:
    may_answer = asyncio.Event()

    async def held(scope: Scope, receive: Receive, send: Send) -> None:
        await may_answer.wait()
        await answer(scope, receive, send)

    async with served(held, keep_alive_s=PATIENCE_S / 10) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ONE + GET)
        await asyncio.sleep(2.5 * PATIENCE_S)  # longer than a head may take
        monkeypatch.setattr(BoundedConnection, "patience_s", HANG_S)
        may_answer.set()
        await reader.readuntil(b"ok")
        await asyncio.sleep(PATIENCE_S / 2)  # longer than a connection without a request is kept
        writer.write(b"\r\n")
        assert (await reader.read()).endswith(b"ok")
        writer.close()


async def test_next_head_is_not_waited_for_though_more_of_it_comes() -> None:
    async with served(slow) as port, asyncio.timeout(HANG_S):
        pieces = [b"x"] * 10_000  # more than the ceiling lets through
        assert (await talk(port, ONE + GET + b"x: ", *pieces, pause_s=PATIENCE_S / 4)).count(b"ok") == 1


async def test_client_that_does_not_read_is_disconnected_and_costs_no_memory() -> None:
    ended, sent = asyncio.Event(), 0

    async def endless(_: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent

        async def listen() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            ended.set()

        await send({"type": "http.response.start", "status": 200, "headers": []})
        listening = asyncio.create_task(listen())
        while not ended.is_set():
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
            sent += 65_536
            await asyncio.sleep(0)
        await listening

    async with served(endless) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        writer.write(GET + b"\r\n")
        async with asyncio.timeout(HANG_S):
            await ended.wait()
        writer.close()
    assert sent < 64 * 2**20


async def test_client_that_reads_slowly_is_not_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece is read in a small part of the time that it has, and all of them in twice as much."""
    monkeypatch.setattr(BoundedConnection, "patience_s", 5 * PATIENCE_S)

    async def large(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in [b"x" * 2**20] * 40:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"end"})

    async with served(large) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET + b"\r\n")
        got = b""
        while piece := await reader.read(4 * 2**20):
            got = piece
            await asyncio.sleep(PATIENCE_S / 20)
        writer.close()
    assert b"end" in got


def test_class_of_connections_has_its_own_limits() -> None:
    connection = bounded(100_000, 7.0)

    assert (connection.max_head_bytes, connection.patience_s) == (100_000, 7.0)
    assert BoundedConnection.max_head_bytes == 2048
