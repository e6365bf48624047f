"""Errors that name a tool, by its place in the client's own list: vLLM gets another list where tools are left out."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from http import HTTPStatus
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gptoss_bento.responses.request import CreateRequest
from gptoss_bento.strict_json import dumps, loads_stored

_PLACE = re.compile(r"\btools\[(\d+)\]")


def with_own_places(app: ASGIApp, request: CreateRequest) -> ASGIApp:
    """An application whose errors name the tools of a request as the client has listed them.

    Args:
        app: vLLM's.
        request: that it answers.
    """
    places = places_of(request)
    if places == [f"tools[{number}]" for number in range(len(places))]:
        return app

    async def corrected(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, _Corrected(places, send).sender())

    return corrected


def places_of(request: CreateRequest) -> list[str]:
    """Where the client has each of the tools that vLLM gets."""
    tools = request.asked.get("tools")
    return list(_places(tools if isinstance(tools, list) else [], request.kinds.left_out))


def _places(tools: Sequence[Any], left_out: Sequence[str]) -> Iterator[str]:
    for number, tool in enumerate(tools):
        place = f"tools[{number}]"
        if isinstance(tool, dict) and tool.get("type") == "namespace" and isinstance(tool.get("tools"), list):
            yield from (f"{place}.tools[{inner}]" for inner in range(len(tool["tools"])))
        elif place not in left_out:
            yield place


class _Corrected:
    """The answer to one request."""

    def __init__(self, places: Sequence[str], send: Send) -> None:
        self._places = places
        self._send = send
        self._start: Message | None = None
        self._body = bytearray()

    def sender(self) -> Callable[[Message], Awaitable[None]]:
        """The `send` of the application. What is no error is passed on with one plain call."""

        def pass_on(message: Message) -> Awaitable[None]:
            if self._start is None and message.get("status", HTTPStatus.OK) < HTTPStatus.BAD_REQUEST:
                return self._send(message)
            return self._error(message)

        return pass_on

    async def _error(self, message: Message) -> None:
        if self._start is None:
            self._start = message
            return
        self._body += message.get("body", b"")
        if message.get("more_body"):
            return
        body = self._in_own_places(bytes(self._body))
        kept = [(name, value) for name, value in self._start.get("headers", ()) if name.lower() != b"content-length"]
        await self._send({**self._start, "headers": [*kept, (b"content-length", str(len(body)).encode())]})
        await self._send({**message, "body": body})

    def _in_own_places(self, body: bytes) -> bytes:
        try:
            said = loads_stored(body.decode())
        except ValueError:
            return body
        error = said.get("error") if isinstance(said, dict) else None
        if not isinstance(error, dict):
            return body
        named = {
            name: _PLACE.sub(self._own, text)
            for name in ("message", "param")
            if isinstance(text := error.get(name), str)
        }
        return dumps({**said, "error": {**error, **named}}).encode()

    def _own(self, place: re.Match[str]) -> str:
        number = int(place[1])
        return self._places[number] if number < len(self._places) else place[0]
