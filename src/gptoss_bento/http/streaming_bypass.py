"""A streamed message goes straight to the HTTP server; only a response's start and end pass BentoML's middlewares.

BentoML's metrics, access log, tracing and time limit each wrap `send`, and Starlette does twice, so that a token would
pass six functions which only wait for the start or the end of a response, and one that would make a span of it.
"""

from __future__ import annotations

from collections.abc import Awaitable
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SERVERS_SEND = "gptoss_bento.send"


class StreamingBypass:
    """The outermost ASGI layer, around BentoML's whole application: keeps the HTTP server's `send` for `direct`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[_SERVERS_SEND] = send
        await self._app(scope, receive, send)


def direct(scope: Scope, send: Send) -> Send:
    """A `send` that bypasses the middlewares for messages between the start and the end of a response.

    Middlewares see all they would of an answer in one piece, so metrics, access log, request ids and one trace per
    request stay as they are. None may change the body of a stream. Errors pass them all, up to http/error_boundary.py.
    """
    servers_send: Send | None = scope.get(_SERVERS_SEND)
    if servers_send is None:
        return send

    goes_well = False

    def choose(message: Message) -> Awaitable[None]:
        nonlocal goes_well
        if message["type"] == "http.response.start":
            goes_well = message["status"] < HTTPStatus.BAD_REQUEST
        return servers_send(message) if goes_well and message.get("more_body") else send(message)

    return choose
