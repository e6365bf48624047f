"""The OpenAPI description of the job API, for `/docs.json`.

What clients send is described by the models that check it, what they get by the types here. A wrong value inside
`input` is no HTTP error: it makes the job FAILED.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from gptoss_bento.http import idempotency
from gptoss_bento.http.errors import RETRY_AFTER_S
from gptoss_bento.jobs.api.routes import paths
from gptoss_bento.jobs.input_models import JobRequest
from gptoss_bento.state.job import Status

TAG = {"name": "Job API", "description": "RunPod's: a job is accepted immediately, and its result fetched later."}
REFERENCE = "#/components/schemas/{model}"

Object = dict[str, Any]

# The job API has two prefixes; RunPod's SDKs know the second.
_SERVERS = [{"url": "."}, {"url": "./v2/{endpoint_id}", "variables": {"endpoint_id": {"default": "local"}}}]


# --- what clients get ------------------------------------------------------------------------------------------------


class JobState(TypedDict):
    """A job's id and state."""

    id: str
    status: Status


class Job(TypedDict):
    """A job. Times are milliseconds."""

    id: str
    status: Status
    delayTime: NotRequired[Annotated[int, Field(ge=0, description="In the queue; once started.")]]
    executionTime: NotRequired[Annotated[int, Field(ge=0, description="Of work; once ended.")]]
    workerId: NotRequired[Annotated[str, Field(description="Who runs it; once started.")]]
    output: NotRequired[Annotated[list[Any], Field(description="Its items; of COMPLETED jobs alone.")]]
    error: NotRequired[Annotated[str, Field(description="One sentence; of FAILED and TIMED_OUT jobs alone.")]]
    retries: NotRequired[Annotated[int, Field(ge=1, description="How often it was run again.")]]


class StreamItem(TypedDict):
    """One item of a job's output."""

    output: Any


class JobStream(TypedDict):
    """The items that were not taken yet."""

    status: Status
    stream: list[StreamItem]
    error: NotRequired[str]


class QueuePurged(TypedDict):
    """How many jobs were cancelled."""

    removed: Annotated[int, Field(ge=0)]
    status: Literal["completed"]


class JobCounts(TypedDict):
    """Numbers of jobs; the ended ones since the store was made."""

    completed: int
    failed: int
    inProgress: int
    inQueue: int
    retried: int


class WorkerCounts(TypedDict):
    """The worker's state: 0 or 1 of each."""

    idle: int
    initializing: int
    ready: int
    running: int
    throttled: int
    unhealthy: int


class Health(TypedDict):
    """Jobs and workers, as RunPod counts them."""

    jobs: JobCounts
    workers: WorkerCounts


class JobError(TypedDict):
    """Why a request was not served: one sentence that names what is wrong."""

    error: str


# --- operations ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Operation:
    summary: str
    answer: type
    errors: tuple[int, ...]
    query: Object | None = None
    takes_job: bool = False


def _query(name: str, meaning: str, **schema: Any) -> Object:
    return {"name": name, "in": "query", "description": meaning, "schema": {"type": "number", **schema}}


_WAIT = _query("wait", "Milliseconds to wait at most; the nearest possible number is taken.")
_TTL = _query("ttl", "Shortens how many milliseconds the result is kept.", minimum=0)

_SUBMISSION = (400, 410, 413, 422, 429)

_OPERATIONS: dict[str, _Operation] = {
    "/run": _Operation("Submits a job", JobState, _SUBMISSION, takes_job=True),
    "/runsync": _Operation("Submits a job and waits for its end", Job, _SUBMISSION, _WAIT, takes_job=True),
    "/status/{id}": _Operation("A job, with its output once it is COMPLETED", Job, (400, 404, 413), _TTL),
    "/status-sync/{id}": _Operation("Waits for a job's end", Job, (400, 404, 413), _WAIT),
    "/stream/{id}": _Operation("Takes the items that were not taken yet", JobStream, (400, 404, 413), _WAIT),
    "/cancel/{id}": _Operation("Ends a job immediately", JobState, (404, 413)),
    "/retry/{id}": _Operation("Queues a FAILED or TIMED_OUT job again", JobState, (400, 404, 413, 429)),
    "/purge-queue": _Operation("Cancels all jobs that wait", QueuePurged, (413,)),
    "/health": _Operation("Numbers of jobs, and the worker's state", Health, (413,)),
}

_ERRORS = {
    400: "The body, one of its fields or a query value is wrong.",
    404: "There is no such job, or its time is over.",
    409: "The job was cancelled.",
    410: "The job of this Idempotency-Key is not kept any more.",
    413: "The body is too large.",
    422: "This Idempotency-Key came with another request.",
    429: "Too many jobs wait.",
    500: "The engine or the server failed.",
    503: "The job store cannot be used now.",
    504: "Time was over before the job ended.",
}
_TYPES = (JobRequest, JobState, Job, JobStream, QueuePurged, Health, JobError)


def job_api() -> Object:
    """Paths and components of an OpenAPI 3.1 document."""
    adapters = [(kind.__name__, "validation", TypeAdapter[Any](kind)) for kind in _TYPES]
    _, schemas = TypeAdapter.json_schemas(adapters, ref_template=REFERENCE)  # type: ignore[arg-type]  # the mode is one
    return {
        "paths": {path: _path(path, methods) for path, methods in paths().items()},
        "components": {"schemas": schemas["$defs"]},
    }


def error_responses(*statuses: int) -> Object:
    """The responses of these statuses, of the job API and `generate`."""
    return {str(status): _error(status) for status in statuses}


def _path(path: str, methods: Iterable[str]) -> Object:
    operation = _OPERATIONS[path]
    name = path.split("/")[1]
    parameters = [_JOB_ID] if path.endswith("{id}") else []
    parameters += [operation.query] if operation.query else []
    parameters += [idempotency.PARAMETER] if operation.takes_job else []
    verbs = {method.lower(): _described(operation, f"{name}-{method.lower()}") for method in methods}
    return {"servers": _SERVERS, "parameters": parameters, **verbs}


def _described(operation: _Operation, name: str) -> Object:
    body = {"requestBody": {"required": True, "content": _content(JobRequest)}} if operation.takes_job else {}
    done = {"description": "Done.", "content": _content(operation.answer)}
    return {
        "operationId": name,
        "tags": [TAG["name"]],
        "summary": operation.summary,
        **body,
        "responses": {"200": done, **error_responses(*operation.errors, 503)},
    }


def _error(status: int) -> Object:
    error = {"description": _ERRORS[status], "content": _content(JobError)}
    return error | ({"headers": {"Retry-After": _RETRY_AFTER}} if status in (429, 503) else {})


def _content(kind: type) -> Object:
    return {"application/json": {"schema": {"$ref": REFERENCE.format(model=kind.__name__)}}}


_RETRY_AFTER: Object = {
    "description": "Seconds to wait.",
    "required": True,
    "schema": {"type": "integer"},
    "example": RETRY_AFTER_S,
}
_JOB_ID: Object = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "What /run answered.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9-]{1,100}$"},
}
