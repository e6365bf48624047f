"""Stored responses are in the memory of the API worker that made them; requests that name one are passed on to it.

vLLM keeps what `GET /v1/responses/{id}`, its cancel and `previous_response_id` need in its application's own process.
Each worker also listens on its own Unix socket, where the others reach it. What comes in there has passed metrics,
access log and RunPod's limits where the client sent it, and meets none of them again.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

import httpx
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.http.body import ARRIVAL, read_body, with_body
from gptoss_bento.http.errors import BrokenStreamError, HttpRefusalError, error_for, openai_refusal
from gptoss_bento.http.paths import RESPONSES
from gptoss_bento.strict_json import encodable

_NAMED = re.compile(rf"{RESPONSES}/(?P<id>[^/]+)(?:/cancel)?")
_QUESTION = "/holds"  # with the id as its body
_ANSWERS = {True: HTTPStatus.OK, False: HTTPStatus.NOT_FOUND, None: HTTPStatus.SERVICE_UNAVAILABLE}
_OF_ONE_HOP = {b"connection", b"transfer-encoding", b"keep-alive"}
_REPLACED_HEADERS = {b"host", b"content-length"}
_ADDED_HERE = {b"date"}  # to every answer, by uvicorn
_STAYS_IN_QUERIES = "%&=+;:,/?@!$'()*[]"
_LOOKUP_TIMEOUT_S = 5.0
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # not used, but httpx would make one for each client, for 17 ms
_END_OF_EVENT = b"\n\n"
_ENDED = "The worker that holds this response ended before its answer did. Try again."
_NO_WORD = "A worker that may hold this response does not say so. Try again."

Holds = Callable[[str], bool | None]
"""Whether this process has the response of that id; None: it cannot say."""


class _UnknownHolderError(Exception):
    """No worker has said that it has the response, and not all have said that they do not."""


class ResponseRouting:
    """ASGI application in front of the guarded one of this process; what is passed on meets the other's guards alone.

    Args:
        app: the guarded application of this process.
        holds: of this process.
        others: the sockets of the other workers.
        settings: the bounds of a body.
    """

    def __init__(self, app: ASGIApp, holds: Holds, others: Sequence[Path], settings: ServerSettings) -> None:
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
        except HttpRefusalError as error:
            await openai_refusal(error)(scope, receive, send)
            return
        except ClientDisconnect:
            return
        answer = await self._answer_for(scope["path"], named) if named else self._app
        await answer(scope, receive, send)

    async def _answer_for(self, path: str, response_id: str) -> ASGIApp:
        """The worker that answers a request for this response; this one, too, if no worker has it."""
        try:
            holder = None if self._holds(response_id) else await self._holder(response_id)
        except _UnknownHolderError:
            return error_for(path, HTTPStatus.SERVICE_UNAVAILABLE, _NO_WORD)
        return partial(_pass_on, holder) if holder else self._app

    async def _named_response(self, scope: Scope, receive: Receive) -> tuple[str | None, Receive]:
        """The id of the stored response that a request needs, and a `receive` that repeats its body."""
        match = _NAMED.fullmatch(scope["path"])
        if not match and (scope["path"] != RESPONSES or scope["method"] != "POST"):
            return None, receive
        body = await read_body(receive, self._largest_body, self._patience_s, scope.get(ARRIVAL))
        return match["id"] if match else _previous(body), with_body(body, receive)

    async def _holder(self, response_id: str) -> Path | None:
        has_word = True
        for other in self._others:
            there = await _holds(other, response_id)
            if there:
                return other
            has_word = has_word and there is not None
        if not has_word:
            raise _UnknownHolderError
        return None


class ForwardedRequests:
    """ASGI application for the socket of a worker: answers lookups, and executes the requests passed on.

    Args:
        app: the guarded application, with authentication and the shutdown gate, and nothing else of the service.
        holds: of this process.
    """

    def __init__(self, app: ASGIApp, holds: Holds) -> None:
        self._app = app
        self._holds = holds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != _QUESTION:
            await self._app(scope, receive, send)
            return
        response_id = (await Request(scope, receive).body()).decode()
        await Response(status_code=_ANSWERS[self._holds(response_id)])(scope, receive, send)


async def _holds(other: Path, response_id: str) -> bool | None:
    """That worker's answer; None: it gave none, or does not know."""
    try:
        async with _client(other, _LOOKUP_TIMEOUT_S) as client:
            answer = await client.post(_QUESTION, content=response_id.encode())
    except httpx.TransportError:
        return None
    return next((there for there, status in _ANSWERS.items() if status == answer.status_code), None)


def _may_name_one(scope: Scope) -> bool:
    return scope["type"] == "http" and str(scope["path"]).startswith(RESPONSES) and scope["method"] != "OPTIONS"


def _client(socket: Path, timeout_s: float | None) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(uds=str(socket), verify=_NO_TLS)
    client = httpx.AsyncClient(transport=transport, base_url="http://worker", timeout=timeout_s)
    client.headers.clear()  # with httpx's own, a head that was within its bounds here could be too large there
    return client


def _previous(body: bytes) -> str | None:
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):  # vLLM says what is wrong
        return None
    named = asked.get("previous_response_id") if isinstance(asked, dict) else None
    return named if isinstance(named, str) and "/" not in named and encodable(named) else None


async def _pass_on(other: Path, scope: Scope, receive: Receive, send: Send) -> None:
    """Does the request in another worker. When its client leaves, it ends there as well.

    Raises:
        BrokenStreamError: that worker has ended, before the answer or within it. http/error_boundary.py says so.
    """
    body = await Request(scope, receive).body()
    query = quote(scope["query_string"], safe=_STAYS_IN_QUERIES)
    path = quote(scope["path"]) + (f"?{query}" if query else "")
    # httpx takes no space at a value's end, which our own server leaves there.
    headers = [
        (name, value.strip(b" \t")) for name, value in scope["headers"] if name not in _OF_ONE_HOP | _REPLACED_HEADERS
    ]
    async with _client(other, None) as client:
        try:
            asked = client.build_request(scope["method"], path, headers=headers, content=body)
        except httpx.InvalidURL:  # longer than httpx takes
            too_long = error_for(scope["path"], HTTPStatus.REQUEST_URI_TOO_LONG, "The URL is too long.")
            await too_long(scope, receive, send)
            return
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
        theirs = [(name.lower(), value) for name, value in answer.headers.raw]
        headers = [pair for pair in theirs if pair[0] not in _OF_ONE_HOP | _ADDED_HERE]
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
