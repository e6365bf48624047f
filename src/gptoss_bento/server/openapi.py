"""`/docs.json`: one OpenAPI document of all that is served, which BentoML's own page shows.

BentoML describes its APIs, and of mounted applications those of FastAPI alone. Here come the job API, the probes and,
while there is an engine, vLLM's description of those of its routes that clients can reach.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from gptoss_bento.batches.openapi import paths_of_batches
from gptoss_bento.http.paths import DOCS, LIVEZ, PING, READYZ, destination
from gptoss_bento.jobs.api.openapi import TAG, Object, error_responses, job_api
from gptoss_bento.responses.openapi import with_stored_responses

logger = logging.getLogger(__name__)

_OPENAI_TAG = {"name": "OpenAI API", "description": "vLLM's own."}
_SERVERS: list[Mapping[str, Any]] = [
    {"url": "."},
    {"url": "./openai"},
    {"url": "./v2/{endpoint_id}/openai", "variables": {"endpoint_id": {"default": "local"}}},
]
_PROBES = {
    LIVEZ: {200: "The process runs."},
    READYZ: {200: "The engine answers.", 503: "It does not yet, or no more; the body says how far it is."},
    PING: {200: "The engine answers.", 204: "It does not yet.", 503: "It will not."},
}
_GENERATE_ERRORS = (400, 409, 413, 429, 500, 503, 504)


class Describing(Protocol):
    """A FastAPI application."""

    def openapi(self) -> Object:
        """Its OpenAPI document."""
        ...


class Description:
    """ASGI middleware that answers `/docs.json`.

    Args:
        bentoml: returns BentoML's document.
        engine_app: returns vLLM's application, or None while there is no engine.
        locked: whether clients need a key.
    """

    def __init__(
        self,
        app: ASGIApp,
        bentoml: Callable[[], Object],
        engine_app: Callable[[], Describing | None],
        *,
        locked: bool = False,
    ) -> None:
        self._app = app
        self._bentoml = bentoml
        self._engine_app = engine_app
        self._locked = locked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and scope["path"] == DOCS and scope["method"] in ("GET", "HEAD"):
            app = JSONResponse(await asyncio.to_thread(self._document))  # vLLM's part takes it a second, once
        await app(scope, receive, send)

    def _document(self) -> Object:
        engine_app = self._engine_app()
        return described(self._bentoml(), _openai_api(engine_app) if engine_app else {}, locked=self._locked)


def described(bentoml: Object, openai_api: Object, *, locked: bool) -> Object:
    """The whole document. The description of a route here wins over BentoML's.

    Args:
        bentoml: BentoML's document.
        openai_api: paths and components of the engine, or nothing.
        locked: whether clients need a key.
    """
    jobs = job_api()
    paths = {**bentoml["paths"], **_probes(), **jobs["paths"], **openai_api.get("paths", {})}
    schemas = [part.get("components", {}).get("schemas", {}) for part in (openai_api, bentoml, jobs)]
    components: Object = {"schemas": {name: schema for part in schemas for name, schema in part.items()}}
    document = {**bentoml, "openapi": "3.1.0", "paths": paths, "components": components}
    document["tags"] = [*bentoml.get("tags", ()), TAG, *([_OPENAI_TAG] if openai_api else ())]
    if "/generate" in paths:
        paths["/generate"] = _with_true_errors(paths["/generate"])
    if locked:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
    return document


def _probes() -> Object:
    return {
        path: {
            "get": {
                "tags": ["Infrastructure"],
                "security": [],
                "responses": {str(status): {"description": words} for status, words in answers.items()},
            }
        }
        for path, answers in _PROBES.items()
    }


def _with_true_errors(generate: Object) -> Object:
    """BentoML describes the errors that it would make itself."""
    post = generate["post"]
    done = {str(status): response for status, response in post["responses"].items() if str(status) == "200"}
    return {**generate, "post": {**post, "responses": {**done, **error_responses(*_GENERATE_ERRORS)}}}


def _openai_api(app: Describing) -> Object:
    try:
        document = app.openapi()
    except Exception:  # of vLLM's types; the rest can be described without them
        logger.exception("vLLM does not describe its routes")
        return {}
    paths = {path: reachable for path, item in document["paths"].items() if (reachable := _reachable(path, item))}
    schemas = document.get("components", {}).get("schemas", {})
    used = {name: schemas[name] for name in _named(paths, schemas)}
    tag = _OPENAI_TAG["name"]
    paths = with_stored_responses(paths, tag) | paths_of_batches(tag, _SERVERS)
    return {"paths": paths, "components": {"schemas": used}}


def _reachable(path: str, item: Mapping[str, Any]) -> Object | None:
    """The part of a path that clients can reach."""
    to = destination(path)
    methods = [method.lower() for method in to.methods if method.lower() in item] if to else []
    if not methods:
        return None
    return {"servers": _SERVERS, **{method: _as_served(item[method]) for method in methods}}


def _as_served(operation: Object) -> Object:
    """FastAPI describes its own 422, where vLLM answers 400."""
    responses = {status: answer for status, answer in operation.get("responses", {}).items() if status != "422"}
    return {**operation, "tags": [_OPENAI_TAG["name"]], "responses": responses}


_REFERENCE = re.compile(r"#/components/schemas/([^\"'/]+)")


def _named(paths: Object, schemas: Mapping[str, Any]) -> list[str]:
    """The schemas that these paths name, and those that they name in turn."""
    found: set[str] = set()
    new = _references(paths)
    while new:
        found |= new
        new = {name for each in new for name in _references(schemas.get(each, {}))} - found
    return sorted(found & schemas.keys())


def _references(part: Any) -> set[str]:
    return set(_REFERENCE.findall(str(part)))
