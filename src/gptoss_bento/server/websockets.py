"""WebSocket mode in a worker: outside of BentoML's layers, behind ours.

BentoML's layers are for requests of HTTP, and would trace and count each message. A turn within a connection passes
the layers of server/app.py that a request passes, and the error boundary around them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gptoss_bento.access.admission_middleware import AdmissionMiddleware
from gptoss_bento.access.authentication import Authentication
from gptoss_bento.access.key_store import KeyStore
from gptoss_bento.access.runpod_limits import RunPodLimits
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.http.api_server import OnStop
from gptoss_bento.http.error_boundary import ErrorBoundary
from gptoss_bento.http.errors import RETRY, HttpRefusalError
from gptoss_bento.http.openai_dispatch import OpenAIApi
from gptoss_bento.http.shutdown_gate import ShutdownGate
from gptoss_bento.responses.websocket import LIFETIME_S, MEMORY_BYTES, Allowed, WebSocketMode
from gptoss_bento.responses.websocket_session import Limits
from gptoss_bento.server.worker import Worker

_STOPPING = "The server is stopping and takes nothing new. Try again."
_NOT_READY = "The engine is not ready. /readyz says how far it is."


def websocket_mode(worker: Worker, settings: ServerSettings, keys: KeyStore) -> WebSocketMode:
    """What answers the WebSocket connections of a worker, without keys; its turns are behind them."""
    allowed = Allowed(
        settings.responses_websockets,
        settings.responses_websockets_per_key,
        settings.cors_origins,
        frozenset(settings.endpoint_ids),
    )
    limits = Limits(settings.responses_websocket_idle, LIFETIME_S, MEMORY_BYTES)
    return WebSocketMode(_turns(worker, settings, keys), worker.admission, allowed, limits, lambda: _why_not(worker))


def _turns(worker: Worker, settings: ServerSettings, keys: KeyStore) -> ASGIApp:
    engine = AdmissionMiddleware(lambda: worker.openai_app, worker.admission, settings, lambda: worker.served_model)
    app: ASGIApp = OpenAIApi(Response(status_code=HTTPStatus.NOT_FOUND), engine.app)
    app = ShutdownGate(app, worker.graceful_shutdown)
    if settings.rate_limit:
        app = RunPodLimits(app, worker.admission)
    return ErrorBoundary(Authentication(app, keys), settings.request_timeout)


def _why_not(worker: Worker) -> HttpRefusalError | None:
    if worker.graceful_shutdown.begun:
        return HttpRefusalError(HTTPStatus.SERVICE_UNAVAILABLE, _STOPPING, RETRY)
    if worker.openai_app is None:
        return HttpRefusalError(HTTPStatus.SERVICE_UNAVAILABLE, _NOT_READY, RETRY)
    return None


class WithWebSockets:
    """The outermost ASGI layer of a worker: WebSocket connections go one way, all else the other.

    Args:
        http: answers requests.
        websockets: answers connections.
    """

    def __init__(self, http: ASGIApp, websockets: ASGIApp) -> None:
        self._http = http
        self._websockets = websockets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._websockets if scope["type"] == "websocket" else self._http)(scope, receive, send)


def stopping_with(mode: WebSocketMode, stop: OnStop) -> OnStop:
    """What a signal does, with the connections closed before."""

    def on_stop(number: int, end: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon_threadsafe(mode.stop)
        stop(number, end)

    return on_stop
