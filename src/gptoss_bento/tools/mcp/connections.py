"""HTTP to MCP servers: to addresses that the rule allows, with bounds on what a server sends.

The client of MCP takes an HTTP client of ours (httpx2's); this is its transport. Each new connection is checked, so
that a redirect and another answer of DNS are, too.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any, cast

import httpcore2
import httpx2

from gptoss_bento.addresses import checked_address
from gptoss_bento.tools.mcp.server import Limits, Server
from gptoss_bento.tools.wire import BoundedNetwork, are_too_small, end_head

_LAST_EVENT = "last-event-id"
_SESSION = "mcp-session-id"
_AGAIN_AFTER_S = 0.5
"""Between two requests with which a stream goes on: the server says how long to wait, which may be no time at all."""
_CONNECTIONS = 8
_BYTES_AROUND = 1024 * 1024  # heads, and what is around the chunks of a body


class ServerLimitError(Exception):
    """A server sends, or makes the client send, more than it may."""


class _CheckedNetwork(httpcore2.AsyncNetworkBackend):
    """Connects to the same address that was checked."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._backend = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore2's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            address = await checked_address(host, port, allow_private=self._allow_private)
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(f"{host} cannot be looked up") from error
        return await self._backend.connect_tcp(address, port, timeout, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class BoundedTransport(httpx2.AsyncBaseTransport):
    """Sends the requests of one session.

    Args:
        limits: what the server may take.
        failed: is called with each error, because the client of MCP keeps some to itself and goes on waiting.
        allow_private: whether it may be at an address that is not public.

    Attributes:
        status: of the last answer to a POST; None: there was none.
    """

    def __init__(self, limits: Limits, failed: Callable[[Exception], None], *, allow_private: bool) -> None:
        self.status: int | None = None
        self._failed = failed
        self._limits = limits
        self._bytes = 0
        self._requests = 0
        bounded = BoundedNetwork(
            _CheckedNetwork(allow_private=allow_private), limits.session_bytes + _BYTES_AROUND, ServerLimitError
        )
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=_tls(),
            max_connections=_CONNECTIONS,
            network_backend=cast(httpcore2.AsyncNetworkBackend, bounded),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Sends one.

        Raises:
            ServerLimitError: it is one too many, or the server encodes its answer, whose length is not known then.
        """
        if _is_idle_stream(request):  # for messages of the server's own, which no tool needs
            return httpx2.Response(405, request=request)
        with self._noted(Exception if request.method == "POST" else ServerLimitError):
            return await self._exchange(request)

    async def _exchange(self, request: httpx2.Request) -> httpx2.Response:
        await self._count(request)
        response = await self._pool.handle_async_request(_as_sent(request))
        end_head(response)
        if request.method == "POST":
            self.status = response.status
        headers = httpx2.Headers(response.headers)
        if headers.get("content-encoding", "identity").strip().lower() != "identity":
            await response.aclose()
            raise ServerLimitError("it encodes its answers, which was not asked for")
        most = None if _is_stream(headers) else self._limits.answer_bytes
        stream = _Body(response, self._noted, self._taken, most)
        return httpx2.Response(response.status, headers=headers, stream=stream, extensions=response.extensions)

    @contextmanager
    def _noted(self, kind: type[Exception] = ServerLimitError) -> Iterator[None]:
        """Reports errors of a kind. Of a stream that breaks the client may ask for the rest, so that is no failure."""
        try:
            yield
        except kind as error:
            self._failed(error)
            raise

    async def _count(self, request: httpx2.Request) -> None:
        self._requests += 1
        if self._requests > self._limits.session_requests:
            raise ServerLimitError(f"it took more than {self._limits.session_requests} requests")
        if _LAST_EVENT in request.headers:
            await asyncio.sleep(_AGAIN_AFTER_S)

    def _taken(self, count: int) -> None:
        self._bytes += count
        if self._bytes > self._limits.session_bytes:
            raise ServerLimitError(f"it sent more than {self._limits.session_bytes:,} bytes")

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._pool.aclose()


class _Body(httpx2.AsyncByteStream):
    """The body of an answer, which ends with an error beyond the bound.

    Args:
        response: whose body it is.
        noted: a context for each read.
        taken: is called with the length of each piece.
        most_bytes: of the body; None: only the session's bound counts.
    """

    def __init__(
        self,
        response: httpcore2.Response,
        noted: Callable[[], AbstractContextManager[None]],
        taken: Callable[[int], None],
        most_bytes: int | None,
    ) -> None:
        self._response = response
        self._noted = noted
        self._taken = taken
        self._most = most_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        count = number = 0
        pieces = self._response.aiter_stream()
        while True:
            with self._noted():
                piece = await anext(pieces, None)
                if piece is None:
                    return
                self._taken(len(piece))
                count, number = count + len(piece), number + 1
                if self._most is not None and count > self._most:
                    raise ServerLimitError(f"its answer has more than {self._most:,} bytes")
                if are_too_small(number, count):
                    raise ServerLimitError("its answer comes in too small pieces")
            yield piece

    async def aclose(self) -> None:
        await self._response.aclose()


def new_client(server: Server, limits: Limits, transport: BoundedTransport) -> httpx2.AsyncClient:
    """A client for one session. It follows no redirect itself; MCP's follows those that stay at the server."""
    return httpx2.AsyncClient(
        transport=transport,
        headers={**server.headers, "Accept-Encoding": "identity", "User-Agent": "gptoss-bento"},
        timeout=httpx2.Timeout(limits.open_s, read=None),  # calls have a bound of their own
        trust_env=False,  # no proxy, which would look names up itself, and no .netrc
    )


def _is_idle_stream(request: httpx2.Request) -> bool:
    """Whether it opens the stream that streamable HTTP has beside calls; a server need not have one."""
    return request.method == "GET" and _SESSION in request.headers and _LAST_EVENT not in request.headers


def _is_stream(headers: httpx2.Headers) -> bool:
    """Whether the answer is of events, each of which the client of MCP bounds."""
    return headers.get("content-type", "").partition(";")[0].strip().lower() == "text/event-stream"


def _as_sent(request: httpx2.Request) -> httpcore2.Request:
    url = request.url
    return httpcore2.Request(
        method=request.method,
        url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        headers=request.headers.raw,
        content=request.stream,
        extensions=request.extensions,
    )


@cache
def _tls() -> ssl.SSLContext:
    return httpx2.create_ssl_context()  # tens of milliseconds, so one for all sessions
