"""BentoML's metrics of HTTP requests, by route rather than by path.

It replaces BentoML's middleware, which makes the path a label: every job's `/status/{id}`, and every unknown
path, would be twenty numbers more, kept and served at /metrics for as long as the service lives. The
names of metrics and labels stay BentoML's. A contract test fails when that is fixed.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from http import HTTPStatus
from timeit import default_timer
from typing import TYPE_CHECKING, Any

from bentoml import server_context
from bentoml._internal.server.http.instruments import RunnerTrafficMetricsMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gptoss_bento.http.paths import METRICS
from gptoss_bento.server.route_names import OTHER, route_name

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram


@dataclass(frozen=True)
class _Ended:
    """The numbers of one route and one status."""

    total: Counter
    duration: Histogram


@dataclass(frozen=True)
class _Series:
    """The numbers of one route. To look one up by its labels costs more than to count."""

    app: ASGIApp
    in_progress: Gauge
    labels: dict[str, str]
    ended: dict[int, _Ended] = field(default_factory=dict)


class RequestMetrics(RunnerTrafficMetricsMiddleware):
    """ASGI middleware that replaces its base class, which defines the metrics."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._series: dict[str, _Series] = {}
        self._not_clients = tuple(self.skip_paths)
        self._last_request: Gauge | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._is_setup:
            self._begin()
        if scope["type"] != "http" or scope["path"] == METRICS:  # no route here is a websocket
            await self.app(scope, receive, send)
            return
        series = self._series_of(route_name(scope["path"]), scope)
        if self._last_request and not scope["path"].startswith(self._not_clients):
            self._last_request.set_to_current_time()
        series.in_progress.inc()
        try:
            await series.app(scope, receive, self._counting(series, send))
        finally:
            series.in_progress.dec()

    def _counting(self, series: _Series, send: Send) -> Send:
        """A `send` that counts the request at its last message."""
        started = default_timer()
        status = int(HTTPStatus.OK)

        def counting(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body" and not message.get("more_body"):
                ended = self._ended(series, status)
                ended.total.inc()
                ended.duration.observe(max(default_timer() - started, 0))
            return send(message)

        return counting

    def _begin(self) -> None:
        self._setup()
        self._last_request = self.metrics_last_request_timestamp.labels(**_service())

    def _series_of(self, route: str, scope: Scope) -> _Series:
        if (series := self._series.get(route)) is None:
            labels = {"endpoint": route, **_service()}
            in_progress = self.metrics_request_in_progress.labels(**labels)
            app = self.app if route == OTHER else self._behind_tracing(scope)
            series = self._series[route] = _Series(app, in_progress, labels)
        return series

    def _behind_tracing(self, scope: Scope) -> ASGIApp:
        """What to call for a route: the next middleware, without OpenTelemetry's where that would do nothing."""
        tracing: Any = self.app
        excluded = getattr(tracing, "excluded_urls", None)
        next_one: ASGIApp = tracing.app if excluded and excluded.url_disabled(scope["path"]) else tracing
        return next_one

    def _ended(self, series: _Series, status: int) -> _Ended:
        if (ended := series.ended.get(status)) is None:
            labels = {**series.labels, "http_response_code": status}
            ended = series.ended[status] = _Ended(
                self.metrics_request_total.labels(**labels), self.metrics_request_duration.labels(**labels)
            )
        return ended


def _service() -> dict[str, Any]:
    context = server_context
    return {
        "service_name": context.bento_name,
        "service_version": context.bento_version,
        "runner_name": context.service_name,
    }
