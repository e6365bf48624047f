"""BentoML's face of the job API: `generate`, for `bentoml.SyncHTTPClient` and BentoML's OpenAPI page.

A job like any other, except that its client learns no id before its end: if it leaves, the job is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Self

import bentoml
from pydantic import ConfigDict, Field
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gptoss_bento.access.authentication import key_of
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.http.body import read_body
from gptoss_bento.http.errors import RETRY, HttpRefusalError
from gptoss_bento.http.fields.served_model import ServedModel
from gptoss_bento.http.json_body import EnvelopeError, json_object
from gptoss_bento.jobs.api.routes import answer, opened
from gptoss_bento.jobs.input import Envelope, InputError, Models, Policy, engine_request
from gptoss_bento.jobs.input_models import Conversation
from gptoss_bento.jobs.runner import Runner
from gptoss_bento.spelling import nearest
from gptoss_bento.state.database import StoreUnavailableError
from gptoss_bento.state.job import Job, Status
from gptoss_bento.strict_json import shown

_CLIENT_LEFT = 499  # nginx's; only the log has it

Object = dict[str, Any]


# mypy sees nothing of BentoML's untyped half.
class GenerateInput(Conversation, bentoml.IODescriptor):  # type: ignore[misc]
    """What `generate` takes: `input` of a native job, without `stream`."""

    model_config = ConfigDict(extra="forbid")

    # What BentoML's client sends of an object with typed properties is these properties alone, the rest vanishes
    # unseen. So these have none here, and unknown names reach the server, which refuses them.
    messages: list[Object] | None = Field(  # type: ignore[assignment]
        None, description=Conversation.model_fields["messages"].description
    )
    sampling_params: Object | None = Field(None, description=Conversation.model_fields["sampling_params"].description)

    @classmethod
    async def from_http_request(cls, request: Request, serde: object) -> Self:  # noqa: ARG003
        """Leaves the body to the call: BentoML's own errors name no field, or hide what happened behind a 500."""
        nothing: Self = cls.model_construct()
        return nothing


class Generation(bentoml.IODescriptor):  # type: ignore[misc]
    """The job, completed: what `/runsync` answers."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(description="The job's id, good for /status/{id} while its result is kept.")
    status: Status = Field(description="COMPLETED; whatever else becomes of a job is an HTTP error.")
    delayTime: int = Field(description="Milliseconds in the queue.")  # noqa: N815  # RunPod's name
    executionTime: int = Field(description="Milliseconds of work.")  # noqa: N815
    workerId: str | None = Field(description="The worker that ran it.")  # noqa: N815
    retries: int | None = Field(None, description="How often it was run again.")
    output: list[Object] = Field(
        description="One item: its choices, whose tokens hold the text, and its usage in tokens."
    )


class GenerateApi:
    """The base of a BentoML service that has `generate`.

    Args:
        runner: returns the runner, or None while there is none.
    """

    def __init__(self, runner: Callable[[], Runner | None]) -> None:
        self._runner = runner

    @bentoml.api(input_spec=GenerateInput, output_spec=Generation)  # type: ignore[untyped-decorator]
    async def generate(self, ctx: bentoml.Context, **_: Any) -> Response:
        """Generates from a prompt or messages: a job that is waited for."""
        try:
            response = await answer(ctx.request, self._complete)
        except ClientDisconnect:
            response = Response(status_code=_CLIENT_LEFT)
        ctx.response.status_code = response.status_code  # BentoML puts this one over the response's own
        return response

    async def _complete(self, request: Request) -> str:
        runner = opened(self._runner())
        settings = runner.settings
        body = await read_body(request.receive, settings.max_runsync_body_bytes, settings.client_timeout)
        fields = read_input(body, settings)
        policy = Policy(settings.execution_timeout_ms, settings.job_ttl_ms)
        with runner.limits.admitted(request.scope):
            submitted = await runner.submit(Envelope(fields, policy), sync=True, key=key_of(request.scope))
        job, items = await _ended(runner, submitted.id, policy.ttl_ms / 1000, request)
        if job is None or job.status is not Status.COMPLETED:
            raise _failure(job)
        return job.body(items)


def read_input(body: bytes, settings: ServerSettings) -> dict[str, Any]:
    """`input` of the job, checked as far as the engine is not needed for it.

    Raises:
        EnvelopeError: all that is wrong, with field and value.
    """
    given = {name: value for name, value in json_object(body or b"{}").items() if value is not None}
    known = {name: value for name, value in given.items() if name in GenerateInput.model_fields}
    problems = [_unknown(name, given[name]) for name in given if name not in known]
    if "prompt" in known or "messages" in known:
        problems += _input_problems(known, settings)
    else:
        problems.append("prompt or messages is required.")
    if problems:
        raise EnvelopeError(" ".join(problems))
    return known


def _input_problems(fields: Mapping[str, Any], settings: ServerSettings) -> list[str]:
    model = ServedModel(writes_harmony=not settings.allow_other_architectures)  # the job is checked by the right one
    try:
        engine_request(fields, settings, Models(served=model))
    except InputError as error:
        return [str(error)]
    return []


def _unknown(name: str, value: Any) -> str:
    if name == "stream":
        return f"stream must be left out, got {shown(value)}: generate answers when all is there, jobs of /run stream."
    near = nearest(name, GenerateInput.model_fields)
    names = ", ".join(GenerateInput.model_fields)
    hint = f"Did you mean {near}?" if near else f"It takes {names}."
    return f"{shown(name)[1:-1]} is no field of generate, got {shown(value)}. {hint}"


async def _ended(runner: Runner, job_id: str, wait_s: float, request: Request) -> tuple[Job | None, Sequence[str]]:
    """The job at its end. Cancelled, if its client leaves, its time is over, or the server stops."""
    ended = asyncio.create_task(runner.ended(job_id, wait_s))
    left = asyncio.create_task(_leaves(request))
    has_ended = False
    try:
        await asyncio.wait((ended, left), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            raise ClientDisconnect
        job, items = ended.result()
        has_ended = job is None or job.status.is_terminal
        return job, items
    finally:
        ended.cancel()
        left.cancel()
        if not has_ended:
            with suppress(StoreUnavailableError):
                await runner.cancel(job_id)


async def _leaves(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _failure(job: Job | None) -> HttpRefusalError:
    """The HTTP error of a job that has no output."""
    if job is None:
        return HttpRefusalError(HTTPStatus.GATEWAY_TIMEOUT, "The job's time to live was over before it ended.")
    if job.status is Status.FAILED:
        status = HTTPStatus.BAD_REQUEST if job.refused else HTTPStatus.INTERNAL_SERVER_ERROR
        return HttpRefusalError(status, job.error or "The job failed.")
    if job.status is Status.TIMED_OUT:
        return HttpRefusalError(HTTPStatus.GATEWAY_TIMEOUT, job.error or "The job ran too long.")
    if job.status is Status.CANCELLED:
        return HttpRefusalError(HTTPStatus.CONFLICT, f"The job {job.id} was cancelled.")
    message = "The server stopped before the job ended. Try again."
    return HttpRefusalError(HTTPStatus.SERVICE_UNAVAILABLE, message, RETRY)
