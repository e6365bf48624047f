from __future__ import annotations

from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gptoss_bento.http.streaming_bypass import StreamingBypass, direct


class Watching:
    """A middleware as BentoML has them, outside of ours: keeps what passes."""

    def __init__(self, app: ASGIApp, passed: list[Message]) -> None:
        self._app = app
        self._passed = passed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def watched(message: Message) -> None:
            if message["type"].startswith("http"):
                self._passed.append(message)
            await send(message)

        await self._app(scope, receive, watched)


class Streams(BaseRoute):
    """Answers every path with three pieces."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (Match.FULL if scope["type"] == "http" else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 500 if scope["path"] == "/broken" else 200
        response = StreamingResponse(iter(["one", "two", "three"]), status)
        await response(scope, receive, direct(scope, send))


async def text_of(app: ASGIApp, path: str = "/") -> str:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return (await client.get(path)).text


def application(passed: list[Message]) -> Starlette:
    return Starlette(routes=[Streams()], middleware=[Middleware(Watching, passed=passed)])


def bodies(passed: list[Message]) -> list[Any]:
    return [message["body"] for message in passed if message["type"] == "http.response.body"]


async def test_middlewares_outside_see_start_and_end_and_the_client_everything() -> None:
    passed: list[Message] = []
    app = StreamingBypass(application(passed))

    assert await text_of(app) == "onetwothree"

    assert [message["type"] for message in passed] == ["http.response.start", "http.response.body"]
    assert passed[0]["status"] == 200
    assert bodies(passed) == [b""]


async def test_without_the_bypass_everything_takes_the_long_way() -> None:
    passed: list[Message] = []
    app = application(passed)

    assert await text_of(app) == "onetwothree"

    assert bodies(passed) == [b"one", b"two", b"three", b""]


async def test_answer_in_one_piece_is_seen_whole() -> None:
    passed: list[Message] = []

    async def whole(scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()
        send = direct(scope, send)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"all"})

    app = StreamingBypass(Watching(whole, passed=passed))

    assert await text_of(app) == "all"
    assert bodies(passed) == [b"all"]


async def test_error_in_pieces_passes_the_middlewares_outside() -> None:
    """http/error_boundary.py holds back how it begins until it has all of it."""
    passed: list[Message] = []
    app = StreamingBypass(application(passed))

    assert await text_of(app, "/broken") == "onetwothree"

    assert bodies(passed) == [b"one", b"two", b"three", b""]
