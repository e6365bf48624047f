"""Counts the requests that the engine works for, and refuses new ones while the service stops."""

from __future__ import annotations

import re
from http import HTTPStatus

from starlette.types import ASGIApp, Receive, Scope, Send

from gptoss_bento.http.errors import error_for
from gptoss_bento.http.paths import is_openai_path
from gptoss_bento.workers.graceful_shutdown import GracefulShutdown

_NEW_JOB = re.compile(r"(/v2/[^/]+)?/(run|runsync|retry/[^/]+)|/generate")
_MESSAGE = "The server is stopping and takes nothing new. Try again."
_HEADERS = {"Connection": "close"}  # the next try opens a new connection, to another server


class ShutdownGate:
    """ASGI middleware. What only asks (states of jobs, items, models, metrics) passes also while the service stops."""

    def __init__(self, app: ASGIApp, shutdown: GracefulShutdown) -> None:
        self._app = app
        self._shutdown = shutdown

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        generates = is_openai_path(scope["path"])
        if self._shutdown.begun and (generates or _NEW_JOB.fullmatch(scope["path"])):
            await error_for(scope["path"], HTTPStatus.SERVICE_UNAVAILABLE, _MESSAGE, _HEADERS)(scope, receive, send)
            return
        self._shutdown.in_flight += generates  # jobs are counted by their runner
        try:
            await self._app(scope, receive, send)
        finally:
            self._shutdown.in_flight -= generates
