"""The outermost of our layers: after any error within, the client gets an answer in the shape of its API.

It replaces BentoML's `TimeoutMiddleware`, which sets a timer of `traffic.timeout` (an hour) for each request
and never cancels it: 464 bytes (measured) and the request's context variables, so at 100 requests/s 170 MB and more
at any time. A contract test fails when that is fixed. BentoML's also needs a task for each request; this does not.
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gptoss_bento.http.errors import ASKED, INTERNAL_ERROR, BrokenStreamError, error_event, error_for, reshaped

logger = logging.getLogger(__name__)

_LARGEST_ERROR_BYTES = 1_000_000
_ERRORS = frozenset(status for status in HTTPStatus if status >= HTTPStatus.BAD_REQUEST)


class ErrorBoundary:
    """ASGI middleware: limits the time until an answer starts, shapes errors, and ends broken streams with an event.

    Args:
        timeout: seconds until an answer must have started; a stream may then go on without limit. None: the
            worker that passed the request on has a limit.
    """

    def __init__(self, app: ASGIApp, timeout: float | None) -> None:
        self._app = app
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(scope, receive, send)
        try:
            async with asyncio.timeout(self._timeout) as limit:
                answer.limit = limit
                await self._app(scope, receive, answer.send)
        except ClientDisconnect:
            return
        except BrokenStreamError as error:
            await answer.fail(error.status, str(error))
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                late = f"No answer within {self._timeout:g} s (REQUEST_TIMEOUT)."
                await answer.fail(HTTPStatus.GATEWAY_TIMEOUT, late)
                return
            logger.exception("%s %s", scope["method"], scope["path"])
            await answer.fail(HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL_ERROR)


class _Answer:
    """What has been sent to one client so far."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._client = send
        self._has_started = False
        self._is_event_stream = False
        self._is_over = False
        self._held: tuple[Message, bytearray] | None = None  # an error, until its whole body is there
        self.limit: asyncio.Timeout | None = None

    async def send(self, message: Message) -> None:
        # Called for every token of a stream, as BentoML's own middleware was: nothing but one comparison.
        if self._has_started:
            await self._client(message)
        else:
            await self._begin(message)

    async def _begin(self, message: Message) -> None:
        if message["type"] == "http.response.start" and self.limit and not self.limit.expired():
            self.limit.reschedule(None)
        if message["type"] == "http.response.start" and message["status"] in _ERRORS:
            self._held = (message, bytearray())
        elif self._held is None:
            self._has_started = True
            kind = Headers(raw=message.get("headers", [])).get("content-type", "")
            self._is_event_stream = kind.startswith("text/event-stream")
            await self._client(message)
        else:
            await self._hold(message)

    async def _hold(self, message: Message) -> None:
        start, body = self._held or (message, bytearray())
        body += message.get("body", b"")
        if message.get("more_body") and len(body) < _LARGEST_ERROR_BYTES:
            return
        self._has_started = self._is_over = True
        status, headers = HTTPStatus(start["status"]), Headers(raw=start.get("headers", []))
        asked = self._scope.get(ASKED, ())
        if response := reshaped(self._scope["path"], status, bytes(body), dict(headers), asked):
            await response(self._scope, self._receive, self._client)
            return
        await self._client(start)
        await self._client({"type": "http.response.body", "body": bytes(body), "more_body": False})

    async def fail(self, status: HTTPStatus, message: str) -> None:
        """The final error event. A body that has started and is no event stream can only break off."""
        path = self._scope["path"]
        if not self._has_started:
            self._has_started = True
            await error_for(path, status, message)(self._scope, self._receive, self._client)
        elif self._is_event_stream:
            last = error_event(path, status, message)
            await self._client({"type": "http.response.body", "body": last, "more_body": False})
        elif not self._is_over:
            raise ConnectionResetError(message)
