"""Passes OpenAI requests on to vLLM's application, or refuses them. Nothing here runs per token."""

from __future__ import annotations

from collections.abc import Callable, Collection
from http import HTTPStatus
from urllib.parse import quote

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from gptoss_bento.http.errors import RETRY, openai_error
from gptoss_bento.http.paths import Destination, destination, is_openai_path
from gptoss_bento.http.streaming_bypass import direct


class OpenAIApi:
    """ASGI middleware that answers all paths of the OpenAI API; what else comes goes on.

    A middleware, because a route would be behind BentoML's context and three routers, 0.4 ms a request (measured).

    Args:
        engine_app: returns vLLM's application, or None while there is no engine.
        endpoint_ids: the ids accepted under /v2/, empty for any.
    """

    def __init__(
        self,
        app: ASGIApp,
        engine_app: Callable[[], ASGIApp | None],
        endpoint_ids: Collection[str] = (),
    ) -> None:
        self._app = app
        self._engine_app = engine_app
        self._endpoint_ids = endpoint_ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not is_openai_path(scope["path"]):
            await self._app(scope, receive, send)
            return
        app = self._answer_for(scope, destination(scope["path"], self._endpoint_ids))
        await app(scope, receive, direct(scope, send))

    def _answer_for(self, scope: Scope, to: Destination | None) -> ASGIApp:
        if to is None:
            return _not_found(scope["path"])
        if scope["method"] not in (*to.methods, "OPTIONS"):  # OPTIONS: vLLM's CORS settings answer it
            return _not_allowed(scope["method"], to)
        app = self._engine_app()
        if app is None:
            return _not_ready()
        # vLLM's application sees its own path at its own root, whatever prefix the client used.
        scope.update(path=to.path, raw_path=quote(to.path).encode(), root_path="", app_root_path="")
        if to.path == "/v1/models" and scope["method"] == "POST":
            scope["method"] = "GET"
        return app


def _not_found(path: str) -> JSONResponse:
    return openai_error(HTTPStatus.NOT_FOUND, f"There is no route {path}.")


def _not_allowed(method: str, to: Destination) -> JSONResponse:
    allowed = ", ".join(to.methods)
    return openai_error(
        HTTPStatus.METHOD_NOT_ALLOWED, f"{to.path} takes {allowed}, not {method}.", headers={"Allow": allowed}
    )


def _not_ready() -> JSONResponse:
    return openai_error(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The engine is not ready. /readyz says how far it is.",
        headers=RETRY,
    )
