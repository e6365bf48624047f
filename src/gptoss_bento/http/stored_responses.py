"""Stored responses lie in the memory of the API worker that made them; requests that name one are passed on to it.

vLLM keeps what `GET /v1/responses/{id}`, its cancel and `previous_response_id` need in its application's own process.
Each worker also listens on a Unix socket of its own, where the others reach it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

import httpx
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from gptoss_bento.http.body import BodyTooLargeError, BodyTooSlowError, read_body, with_body
from gptoss_bento.http.errors import BrokenStreamError
from gptoss_bento.http.guard import body_refusal
from gptoss_bento.native.json_text import encodable
from gptoss_bento.settings import ServerSettings

_ROUTE = "/v1/responses"
_NAMED = re.compile(rf"{_ROUTE}/(?P<id>[^/]+)(?:/cancel)?")
_PASSED_ON = b"x-gptoss-bento-passed-on"
_OF_ONE_HOP = {b"connection", b"transfer-encoding", b"keep-alive"}
_MADE_ANEW = {b"host", b"content-length"}
_STAYS_IN_QUERIES = "%&=+;:,/?@!$'()*[]"
_ASK_TIMEOUT_S = 5.0
_END_OF_EVENT = b"\n\n"
_ENDED = "The worker that holds this response ended before its answer did. Try again."


class StoredResponses:
    """ASGI application in front of the guarded one of this process; what is passed on meets the other's guards alone.

    Args:
        app: the guarded application of this process.
        holds: whether this process has the response of that id.
        others: the sockets of the other workers.
        settings: the bounds of a body.
    """

    def __init__(
        self, app: ASGIApp, holds: Callable[[str], bool], others: Sequence[Path], settings: ServerSettings
    ) -> None:
        self._app = app
        self._holds = holds
        self._others = others
        self._largest_body = settings.max_openai_body_bytes
        self._patience_s = settings.client_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _may_name_one(scope):  # nearly all there is
            await self._app(scope, receive, send)
            return
        try:
            named, receive = await self._named_response(scope, receive)
        except (BodyTooLargeError, BodyTooSlowError) as error:
            await body_refusal(error)(scope, receive, send)
            return
        except ClientDisconnect:
            return
        if named and not self._holds(named):
            headers = [
                *(pair for pair in scope["headers"] if pair[0] not in _OF_ONE_HOP | _MADE_ANEW),
                (_PASSED_ON, b"1"),
            ]
            with suppress(httpx.InvalidURL):  # longer than httpx takes
                if other := await self._holder(named, headers):
                    await _pass_on(other, headers, scope, receive, send)
                    return
        await self._app(scope, receive, send)

    async def _named_response(self, scope: Scope, receive: Receive) -> tuple[str | None, Receive]:
        """The id of the stored response that a request needs, and what gives its body again."""
        match = _NAMED.fullmatch(scope["path"])
        if not match and (scope["path"] != _ROUTE or scope["method"] != "POST"):
            return None, receive
        body = await read_body(receive, self._largest_body, self._patience_s)
        return match["id"] if match else _previous(body), with_body(body, receive)

    async def _holder(self, response_id: str, headers: list[tuple[bytes, bytes]]) -> Path | None:
        for other in self._others:
            with suppress(httpx.TransportError):  # it ends; its responses are gone
                async with _client(other, _ASK_TIMEOUT_S) as client:
                    path = f"/v1/responses/{quote(response_id, safe='')}"
                    asked = client.build_request("GET", path, headers=headers)
                    answer = await client.send(asked)
                    if answer.status_code == httpx.codes.OK:
                        return other
        return None


def _may_name_one(scope: Scope) -> bool:
    if scope["type"] != "http" or not scope["path"].startswith(_ROUTE):
        return False
    return all(name != _PASSED_ON for name, _ in scope["headers"])


def _client(socket: Path, timeout_s: float | None) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    return httpx.AsyncClient(transport=transport, base_url="http://worker", timeout=timeout_s)


def _previous(body: bytes) -> str | None:
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):  # vLLM says what is wrong
        return None
    named = asked.get("previous_response_id") if isinstance(asked, dict) else None
    return named if isinstance(named, str) and "/" not in named and encodable(named) else None


async def _pass_on(other: Path, headers: list[tuple[bytes, bytes]], scope: Scope, receive: Receive, send: Send) -> None:
    """Does the request in another worker. When its client leaves, it ends there as well.

    Raises:
        BrokenStreamError: that worker has ended, before the answer or within it. http/edge.py says so.
    """
    body = await Request(scope, receive).body()
    query = quote(scope["query_string"], safe=_STAYS_IN_QUERIES)
    path = quote(scope["path"]) + (f"?{query}" if query else "")
    async with _client(other, None) as client:
        asked = client.build_request(scope["method"], path, headers=headers, content=body)
        relay, left = asyncio.create_task(_relay(client, asked, send)), asyncio.create_task(_left(receive))
        try:
            done, _ = await asyncio.wait((relay, left), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (relay, left):
                task.cancel()
            await asyncio.gather(relay, left, return_exceptions=True)
        if left not in done:
            relay.result()  # raises what went wrong there


async def _relay(client: httpx.AsyncClient, asked: httpx.Request, send: Send) -> None:
    try:
        answer = await client.send(asked, stream=True)
        headers = [(name.lower(), value) for name, value in answer.headers.raw if name.lower() not in _OF_ONE_HOP]
        await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
        async for piece in _pieces(answer):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    except httpx.TransportError as error:
        raise BrokenStreamError(HTTPStatus.SERVICE_UNAVAILABLE, _ENDED) from error
    await send({"type": "http.response.body"})


async def _pieces(answer: httpx.Response) -> AsyncIterator[bytes]:
    """The body as it comes, of a stream only whole events: an error event after a part of one would belong to it."""
    if not answer.headers.get("content-type", "").startswith("text/event-stream"):
        async for piece in answer.aiter_raw():
            yield piece
        return
    rest = b""
    async for piece in answer.aiter_raw():
        events, end, rest = (rest + piece).rpartition(_END_OF_EVENT)
        if end:
            yield events + end
    if rest:
        yield rest


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
