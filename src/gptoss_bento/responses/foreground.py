"""A response whose client waits for it: vLLM's answer on its way to the client, whole, and stored before its end."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gptoss_bento.access.authentication import is_of_job
from gptoss_bento.http.errors import BrokenStreamError
from gptoss_bento.responses.event_stream import EventStream
from gptoss_bento.responses.objects import whole
from gptoss_bento.responses.record import MISTAKE
from gptoss_bento.responses.request import CreateRequest
from gptoss_bento.strict_json import dumps, loads_stored

Fields = dict[str, Any]


class Recorder(Protocol):
    """What keeps a response beyond its answer."""

    @property
    def is_ended(self) -> bool:
        """Whether one of the calls below was made."""
        ...

    async def finish(self, final: Mapping[str, Any]) -> None:
        """The response has ended with this object."""
        ...

    async def discard(self) -> None:
        """There is no response after all."""
        ...


class ForegroundResponse:
    """One call of vLLM's application.

    Args:
        request: that it answers.
        first: the object that is stored until there is vLLM's.
        record: of the response; None: it is not kept.
        send: of the client.
    """

    def __init__(self, request: CreateRequest, first: Mapping[str, Any], record: Recorder | None, send: Send) -> None:
        self._request = request
        self._first = first
        self._record = record
        self._send = send
        self._stream: EventStream | None = None
        self._start: Message | None = None
        self._body = bytearray()

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive) -> None:
        """Calls the application, and ends the record however the call ends."""
        try:
            await app(scope, receive, self._receiver())
        except BrokenStreamError as error:
            if self._stream and self._stream.started and not is_of_job(scope):  # a job may run again
                await self._fail(self._stream, str(error))
            await self._end("failed", str(error))
            raise
        except Exception:
            await self._end("failed", MISTAKE)
            raise
        finally:
            await self._end("cancelled")  # its client has left, unless it has ended already

    def _receiver(self) -> Callable[[Message], Awaitable[None]]:
        """The `send` of vLLM's application. One plain call a token, which passes on what it is given."""
        send = self._send

        def pass_on(message: Message) -> Awaitable[None]:
            if (stream := self._stream) is None:
                return self._other(message)
            if stream.passes(message.get("body", b"")):
                return send(message)
            return self._event(stream, message)

        return pass_on

    async def _other(self, message: Message) -> None:
        """What is no event: the start of any answer, and the body of one in one piece."""
        if message["type"] == "http.response.start":
            if message["status"] == HTTPStatus.OK and _is_stream(message):
                self._stream = EventStream(self._whole, self._request.kinds, self._request.returned)
                await self._send(message)
            else:
                self._start = message
            return
        self._body += message.get("body", b"")
        if not message.get("more_body"):
            await self._answer(message)

    async def _answer(self, last: Message) -> None:
        start, body = self._start, bytes(self._body)
        made = _object(body) if start is not None and start["status"] == HTTPStatus.OK else None
        if made is not None:
            final = self._whole(made)
            if self._record:
                await self._record.finish(final)
            body = dumps(final).encode()
        elif self._record and start is not None and start["status"] != HTTPStatus.OK:
            await self._record.discard()
        if start is not None:
            await self._send({**start, "headers": _with_length(start.get("headers", ()), len(body))})
        await self._send({**last, "body": body})

    async def _event(self, stream: EventStream, message: Message) -> None:
        events = stream.feed(message["body"]) if message.get("body") else [b""]
        if stream.final and self._record:
            await self._record.finish(stream.final)
        body = b"".join(events)
        if body or not message.get("more_body"):
            await self._send({**message, "body": body})

    async def _fail(self, stream: EventStream, message: str) -> None:
        """Sends the last event of OpenAI's schema; http/error_boundary.py adds the error's own event, and ends."""
        events = stream.failed({"code": "server_error", "message": message})
        await self._send({"type": "http.response.body", "body": b"".join(events), "more_body": True})

    def _whole(self, made: Mapping[str, Any]) -> Fields:
        return whole(made, self._request, int(time.time()))

    async def _end(self, status: str, message: str | None = None) -> None:
        if self._record is None or self._record.is_ended:
            return
        if self._stream and self._stream.final:
            await self._record.finish(self._stream.final)
            return
        made = (self._stream.started if self._stream else None) or self._first
        output = self._stream.output if self._stream else []
        error = {"code": "server_error", "message": message} if message else None
        await self._record.finish({**made, "status": status, "error": error, "output": output})


def _is_stream(start: Message) -> bool:
    headers = dict(start.get("headers", ()))
    return bool(headers.get(b"content-type", b"").startswith(b"text/event-stream"))


def _object(body: bytes) -> Fields | None:
    try:
        made = loads_stored(body.decode())
    except ValueError:
        return None
    return made if isinstance(made, dict) and made.get("object") == "response" else None


def _with_length(headers: Any, length: int) -> list[tuple[bytes, bytes]]:
    kept = [(name, value) for name, value in headers if name.lower() != b"content-length"]
    return [*kept, (b"content-length", str(length).encode())]
