"""The probes of orchestrators: alive? ready? They are answered as soon as the port is open."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gptoss_bento.http.errors import RETRY
from gptoss_bento.http.paths import LIVEZ, PING, READYZ
from gptoss_bento.workers.readiness import Readiness, State


class Probes:
    """ASGI middleware in front of BentoML's own probes, whose bodies are empty.

    `/livez`: 200 while the process runs. `/readyz`: 200 when the engine answers, else 503, with the phase and the
    times so far. `/ping`: what RunPod's load balancer asks, 200 when ready and 204 while loading.
    """

    def __init__(self, app: ASGIApp, startup: Readiness) -> None:
        self._app = app
        self._startup = startup
        self._answers = {LIVEZ: self._live, READYZ: self._ready, PING: self._ping}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._answers.get(scope["path"]) if scope["type"] == "http" else None
        await (answer() if answer else self._app)(scope, receive, send)

    def _live(self) -> Response:
        return JSONResponse({"status": "alive"})

    def _ready(self) -> Response:
        if self._startup.is_ready:
            return JSONResponse(self._startup.report())
        return JSONResponse(self._startup.report(), status_code=503, headers=RETRY)

    def _ping(self) -> Response:
        if self._startup.is_ready:
            return Response(status_code=200)
        if self._startup.service_state is State.STARTING:
            return Response(status_code=204)
        return Response(status_code=503, headers=RETRY)
