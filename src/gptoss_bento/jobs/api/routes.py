"""The job API over HTTP, at the root and under /v2/{endpoint_id}. Nothing but HTTP: the runner does the work.

What RunPod's SDKs impose: 200 and nothing else for a success, bodies of one line, no trust in
`Content-Type`, and empty bodies wherever nothing is needed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from gptoss_bento.http.body import read_body
from gptoss_bento.http.errors import INTERNAL_ERROR, RETRY, HttpRefusalError
from gptoss_bento.http.json_body import EnvelopeError
from gptoss_bento.http.paths import is_openai_path
from gptoss_bento.jobs.api.repeatable_submission import RepeatableSubmission, replayed
from gptoss_bento.jobs.input import read_envelope
from gptoss_bento.jobs.limits import rates_of
from gptoss_bento.jobs.runner import LONGEST_WAIT_MS, Runner
from gptoss_bento.state.database import StoreUnavailableError
from gptoss_bento.state.job import Job, Status
from gptoss_bento.strict_json import dumps, shown

logger = logging.getLogger(__name__)

_STREAM_WAIT_MS = 1_000
_SHORTEST_WAIT_MS = 1_000
_SMALL_BODY_BYTES = 65_536  # for routes without a body

_PATH = re.compile(r"(?:/v2/(?P<endpoint>[^/]*))?/(?P<action>[a-z-]+)(?:/(?P<job>[^/]+))?")
_ENDPOINT = re.compile(r"[A-Za-z0-9_-]{1,64}")
_JOB_ID = re.compile(r"[A-Za-z0-9-]{1,100}")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class _Call:
    """A request, as far as an action needs it."""

    runner: Runner
    request: Request
    job_id: str
    body: bytes
    trouble: Callable[[], Mapping[str, Any] | None]

    @property
    def query(self) -> QueryParams:
        return self.request.query_params

    def admitted(self) -> AbstractContextManager[None]:
        return self.runner.limits.admitted(self.request.scope)


_Action = Callable[[_Call], Awaitable[str]]


class NativeRoutes(BaseRoute):
    """All paths of the job API, as one Starlette route.

    Args:
        runner: returns the runner, or None while there is none.
        endpoint_ids: the ids accepted under /v2/, empty for any, as in most deployments: clients of RunPod keep theirs.
        trouble: returns what `/health` reports of an engine that is dead or does not answer; None if all is well.
    """

    def __init__(
        self,
        runner: Callable[[], Runner | None],
        endpoint_ids: Collection[str] = (),
        trouble: Callable[[], Mapping[str, Any] | None] = lambda: None,
    ) -> None:
        self._runner = runner
        self._endpoint_ids = endpoint_ids
        self._trouble = trouble

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        ours = scope["type"] == "http" and is_native_path(scope["path"])
        return (Match.FULL, {}) if ours else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await answer(Request(scope, receive), self._act)
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _act(self, request: Request) -> str:
        route, job_id = self._route(request.scope["path"])
        if request.method not in route.methods:
            allowed = ", ".join(route.methods)
            message = f"{request.scope['path']} takes {allowed}, not {request.method}."
            raise HttpRefusalError(HTTPStatus.METHOD_NOT_ALLOWED, message, {"Allow": allowed})
        runner = opened(self._runner())
        body = await read_body(request.receive, route.body_limit(runner), runner.settings.client_timeout)
        return await route.action(_Call(runner, request, job_id, body, self._trouble))

    def _route(self, path: str) -> tuple[_Route, str]:
        match = _PATH.fullmatch(path)
        endpoint = match["endpoint"] if match else None
        route = _ROUTES.get((match["action"], match["job"] is not None)) if match else None
        if match is None or route is None or (endpoint is not None and not self._is_endpoint(endpoint)):
            raise HttpRefusalError(HTTPStatus.NOT_FOUND, f"There is no route {shown(path)[1:-1]}.")
        job_id = match["job"] or ""
        if job_id and not _JOB_ID.fullmatch(job_id):  # nothing else reaches the store
            _found(None, job_id)
        return route, job_id

    def _is_endpoint(self, endpoint: str) -> bool:
        return endpoint in self._endpoint_ids if self._endpoint_ids else bool(_ENDPOINT.fullmatch(endpoint))

    def url_path_for(self, name: str, /, **path_params: Any) -> Any:  # not a named route
        raise NotImplementedError


def is_native_path(path: str) -> bool:
    """Whether a path is the job API's: what begins like its routes, and what is below /v2/ but is not OpenAI's."""
    first = path.split("/")[1] if path.startswith("/") else ""
    return any(action == first for action, _ in _ROUTES) or (path.startswith("/v2/") and not is_openai_path(path))


def paths() -> dict[str, tuple[str, ...]]:
    """The paths at the root, as templates, and the methods they take."""
    return {_template(*name): route.methods for name, route in _ROUTES.items()}


def route_of(path: str) -> str | None:
    """The route that a path leads to, as a template at the root; None: to none."""
    match = _PATH.fullmatch(path)
    name = (match["action"], match["job"] is not None) if match else None
    return _template(*name) if name in _ROUTES else None


def _template(action: str, of_job: bool) -> str:
    return f"/{action}{'/{id}' if of_job else ''}"


async def answer(request: Request, act: Callable[[Request], Awaitable[str]]) -> Response:
    """The JSON text that `act` returns, or the error that it raises; both with the rates of the submitting key.

    Raises:
        ClientDisconnect: the client is gone.
    """
    response = await _answer(request, act)
    response.headers.update({**rates_of(request.scope), **replayed(request.scope)})
    return response


async def _answer(request: Request, act: Callable[[Request], Awaitable[str]]) -> Response:
    try:
        return _json(await act(request))
    except HttpRefusalError as error:
        return _refused(error)
    except StoreUnavailableError as error:
        logger.warning("%s", error)
        message = "The job store cannot be used now. Try again."
        return _refused(HttpRefusalError(HTTPStatus.SERVICE_UNAVAILABLE, message, RETRY))
    except ClientDisconnect:
        raise
    except Exception:
        logger.exception("%s %s", request.method, request.scope["path"])
        return _refused(HttpRefusalError(HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL_ERROR))


def opened(runner: Runner | None) -> Runner:
    """The runner, or the answer 503 while there is none."""
    if runner is None:
        raise HttpRefusalError(HTTPStatus.SERVICE_UNAVAILABLE, "The job store is not open yet. Try again.", RETRY)
    return runner


def _refused(error: HttpRefusalError) -> Response:
    """An error as RunPod's SDKs read it: `error` is a text."""
    return _json(dumps({"error": str(error)}), error.status, error.headers)


def _json(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(text.encode(), status, headers, media_type="application/json")


# --- actions ---------------------------------------------------------------------------------------------------------


async def _run(call: _Call) -> str:
    envelope = read_envelope(call.body, call.runner.settings)
    repeatable = RepeatableSubmission(call.runner, call.request.scope, "/run", call.body)
    if earlier := await repeatable.earlier():
        return _state(earlier.id, earlier.status)
    with call.admitted():
        job = await repeatable.submit(envelope, sync=False)
    return _state(job.id, Status.IN_QUEUE)


async def _runsync(call: _Call) -> str:
    envelope = read_envelope(call.body, call.runner.settings)
    wait_ms = _wait(call, _SHORTEST_WAIT_MS)
    repeatable = RepeatableSubmission(call.runner, call.request.scope, "/runsync", call.body)
    if not (job := await repeatable.earlier()):
        with call.admitted():
            job = await repeatable.submit(envelope, sync=True, wait_ms=wait_ms)
    return await _when_ended(call, job.id, wait_ms)


async def _status_sync(call: _Call) -> str:
    return await _when_ended(call, call.job_id, _wait(call, _SHORTEST_WAIT_MS))


async def _when_ended(call: _Call, job_id: str, wait_ms: int | None) -> str:
    milliseconds = call.runner.settings.runsync_wait_ms if wait_ms is None else wait_ms
    job, items = await call.runner.ended(job_id, milliseconds / 1000)
    return _found(job, job_id).body(items)


async def _status(call: _Call) -> str:
    ttl_ms = _milliseconds(call, "ttl")
    if ttl_ms is not None and ttl_ms < 0:
        raise EnvelopeError(f"ttl must be at least 0, got {shown(call.query['ttl'])}")
    job, items = await call.runner.store.output(call.job_id)
    body = _found(job, call.job_id).body(items)
    if ttl_ms is not None:
        await call.runner.store.shorten(call.job_id, int(ttl_ms))
    return body


async def _stream(call: _Call) -> str:
    given = _wait(call, 0)
    wait_ms = _STREAM_WAIT_MS if given is None else given
    found, items = await call.runner.stream(call.job_id, wait_ms / 1000, call.request.is_disconnected)
    job = _found(found, call.job_id)
    head: dict[str, Any] = {"status": job.status.value}
    if job.status in (Status.FAILED, Status.TIMED_OUT):
        head["error"] = job.error
    outputs = ",".join(f'{{"output":{item}}}' for item in items)
    return f'{dumps(head)[:-1]},"stream":[{outputs}]}}'


async def _cancel(call: _Call) -> str:
    job = _found(await call.runner.cancel(call.job_id), call.job_id)
    return _state(job.id, job.status)


async def _retry(call: _Call) -> str:
    with call.admitted():
        found, again = await call.runner.retry(call.job_id)
    job = _found(found, call.job_id)
    if not again:
        raise EnvelopeError(f"Only FAILED and TIMED_OUT jobs can be run again; job {job.id} is {job.status}.")
    return _state(job.id, Status.IN_QUEUE)


async def _purge_queue(call: _Call) -> str:
    return dumps({"removed": await call.runner.purge(), "status": "completed"})


async def _health(call: _Call) -> str:
    health = await call.runner.health()
    trouble = call.trouble()
    return dumps({**health, "engine": trouble} if trouble else health)


def _state(job_id: str, status: Status) -> str:
    return dumps({"id": job_id, "status": status.value})


def _found(job: Job | None, job_id: str) -> Job:
    if job is None:
        raise HttpRefusalError(HTTPStatus.NOT_FOUND, f"There is no job {shown(job_id)[1:-1]}, or its time is over.")
    return job


def _wait(call: _Call, shortest_ms: int) -> int | None:
    value = _milliseconds(call, "wait")
    return None if value is None else int(min(max(value, shortest_ms), LONGEST_WAIT_MS))


def _milliseconds(call: _Call, name: str) -> float | None:
    text = call.query.get(name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise EnvelopeError(f"{name} must be a number of milliseconds, got {shown(text)}")
    return min(float(text), float(_FAR_FUTURE_MS))


_FAR_FUTURE_MS = 10**12


@dataclass(frozen=True)
class _Route:
    action: _Action
    methods: tuple[str, ...]
    body_limit: Callable[[Runner], int] = lambda _: _SMALL_BODY_BYTES


_ROUTES: dict[tuple[str, bool], _Route] = {  # by name and whether a job's id follows
    ("run", False): _Route(_run, ("POST",), lambda runner: runner.settings.max_run_body_bytes),
    ("runsync", False): _Route(_runsync, ("POST",), lambda runner: runner.settings.max_runsync_body_bytes),
    ("status", True): _Route(_status, ("GET", "POST")),
    ("status-sync", True): _Route(_status_sync, ("GET", "POST")),
    ("stream", True): _Route(_stream, ("GET", "POST")),
    ("cancel", True): _Route(_cancel, ("POST",)),
    ("retry", True): _Route(_retry, ("POST",)),
    ("purge-queue", False): _Route(_purge_queue, ("POST",)),
    ("health", False): _Route(_health, ("GET",)),
}
