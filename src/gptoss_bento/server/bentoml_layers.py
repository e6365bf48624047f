"""What is served around BentoML's application: two of its layers become ours, and one is outside of all.

The other layers of ours are BentoML's middlewares by its public `add_asgi_middleware` (server/app.py), so that no
request passes the keys even if this module had no effect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bentoml._internal.server.http.instruments import RunnerTrafficMetricsMiddleware
from bentoml._internal.server.http.traffic import TimeoutMiddleware
from starlette.applications import Starlette
from starlette.middleware import Middleware

from gptoss_bento.http.error_boundary import ErrorBoundary
from gptoss_bento.http.streaming_bypass import StreamingBypass
from gptoss_bento.server.request_metrics import RequestMetrics

_OURS: Mapping[Any, Callable[..., Any]] = {
    RunnerTrafficMetricsMiddleware: RequestMetrics,
    TimeoutMiddleware: ErrorBoundary,
}
"""What takes the place of a middleware of BentoML's, with the options that BentoML gives it."""


def with_our_layers(application: Starlette) -> StreamingBypass:
    """The application as it is served.

    Args:
        application: BentoML's, which has not yet been called.
    """
    application.user_middleware = [_ours(layer) for layer in application.user_middleware]
    return StreamingBypass(application)


def _ours(layer: Middleware) -> Middleware:
    return Middleware(_OURS.get(layer.cls, layer.cls), *layer.args, **layer.kwargs)
