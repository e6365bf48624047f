"""Answers that are all markup of HTTP, over connections of the browser and of MCP servers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gptoss_bento.tools.browser.domains import DomainRules
from gptoss_bento.tools.browser.failures import BrowserError
from gptoss_bento.tools.browser.fetch import Fetcher
from gptoss_bento.tools.browser.limits import Limits
from gptoss_bento.tools.mcp import server
from gptoss_bento.tools.mcp.failures import McpError
from gptoss_bento.tools.mcp.servers import McpServers
from gptoss_bento.tools.wire import HEAD_BYTES, PIECE_BYTES, Wire, are_too_small
from tests.unit.tools.browser.web import Web, answer
from tests.waiting import HANG_S

INTERIM = b"HTTP/1.1 100\r\n\r\n"
FLOOD = INTERIM * (HEAD_BYTES // len(INTERIM) + PIECE_BYTES)
CHUNKED = b"HTTP/1.1 200 X\r\nContent-Type: {}\r\nTransfer-Encoding: chunked\r\n\r\n"
EXTENSIONS = (b"40;" + b"x" * 8000 + b"\r\n" + b"x" * 64 + b"\r\n") * 300
ONES = b"1\r\n{\r\n" * 3000
AROUND = "it sends too much around its answer"


class Stream:
    """Has as many bytes as are asked for."""

    asked: list[int]

    def __init__(self) -> None:
        self.asked = []

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109  # httpcore's
        del timeout
        self.asked.append(max_bytes)
        return bytes(max_bytes)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109  # httpcore's
        del buffer, timeout


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    async with Web().listening() as made:
        yield made


async def problem(web: Web, content: bytes) -> str:
    """Of a page."""
    web.answers = {"/": content}
    fetcher = Fetcher(Limits(fetch_s=HANG_S, page_bytes=1_000_000), allow_private=True)
    with pytest.raises(BrowserError) as failed:
        await fetcher.get(web.url(), DomainRules())
    await fetcher.close()
    return str(failed.value).partition("`: ")[2]


async def problem_of_server(web: Web, content: bytes) -> str:
    """Of an MCP server."""
    web.answers = {"/": content}
    limits = server.Limits(session_bytes=1_000_000, open_s=HANG_S)
    with pytest.raises(McpError) as failed:
        await McpServers(limits=limits, allow_private=True).tools(
            server.Server("label", web.url(), server.Transport.HTTP)
        )
    return str(failed.value)


async def test_page_after_interim_answers_is_read(web: Web) -> None:
    web.answers = {"/": INTERIM * 100 + answer("text")}
    fetcher = Fetcher(Limits(fetch_s=HANG_S), allow_private=True)

    assert (await fetcher.get(web.url(), DomainRules())).body == b"text"
    await fetcher.close()


async def test_interim_answers_of_a_page_are_bounded(web: Web) -> None:
    assert await problem(web, FLOOD) == AROUND


async def test_extensions_of_chunks_of_a_page_are_bounded(web: Web) -> None:
    assert await problem(web, CHUNKED.replace(b"{}", b"text/plain") + EXTENSIONS) == AROUND


async def test_interim_answers_of_an_mcp_server_are_bounded(web: Web) -> None:
    assert AROUND in await problem_of_server(web, FLOOD)


async def test_extensions_of_chunks_of_an_mcp_server_are_bounded(web: Web) -> None:
    assert AROUND in await problem_of_server(web, CHUNKED.replace(b"{}", b"application/json") + EXTENSIONS)


@pytest.mark.parametrize("content_type", [b"application/json", b"text/event-stream"])
async def test_small_pieces_of_an_mcp_server_are_bounded(web: Web, content_type: bytes) -> None:
    found = await problem_of_server(web, CHUNKED.replace(b"{}", content_type) + ONES)

    assert "its answer comes in too small pieces" in found


async def test_connection_is_read_in_small_pieces_and_each_head_has_its_bound() -> None:
    stream = Stream()
    wire = Wire(stream, 10 * HEAD_BYTES, RuntimeError)
    for _ in range(2):
        await wire.write(b"request")
        for _ in range(HEAD_BYTES // PIECE_BYTES):
            await wire.read(65536)

    with pytest.raises(RuntimeError, match=AROUND):
        await wire.read(1)
    assert set(stream.asked) == {PIECE_BYTES, 1}


async def test_connection_has_a_bound_of_all() -> None:
    wire = Wire(Stream(), 100, RuntimeError)
    wire.is_in_head = False
    await wire.read(100)

    with pytest.raises(RuntimeError, match=AROUND):
        await wire.read(1)


def test_pieces_are_too_small_by_their_mean() -> None:
    assert not are_too_small(1000, 1000)
    assert are_too_small(1100, 1100)
    assert not are_too_small(100_000, 100_000 * 64)
