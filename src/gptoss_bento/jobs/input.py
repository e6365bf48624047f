"""From the body of `/run` to a request that the engine understands. Pure.

Two kinds of wrong input: what is around `input` is an HTTP error (`EnvelopeError`), what is inside it makes the job
FAILED (`InputError`), as on RunPod. Both name every wrong field with its value and say what would be right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any, TypeVar
from urllib.parse import unquote

from pydantic import BaseModel

from gptoss_bento import strict_json
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.http.errors import FieldError
from gptoss_bento.http.fields.check import checked as checked_fields
from gptoss_bento.http.fields.served_model import GPT_OSS, ServedModel
from gptoss_bento.http.fields.translation import beside_hidden_reasoning, hidden_reasoning
from gptoss_bento.http.json_body import EnvelopeError, json_object
from gptoss_bento.http.paths import CHAT, COMPLETIONS
from gptoss_bento.jobs import sampling
from gptoss_bento.jobs.input_fields import (
    endless_numbers,
    meant_shape,
    unknown_fields,
    with_parameters,
    without_effect,
    without_route,
)
from gptoss_bento.jobs.input_models import JobPolicy, JobRequest, NativeJob, OpenAIJob, RouteJob
from gptoss_bento.jobs.input_problems import checked, sentences, text_of
from gptoss_bento.jobs.output.batching import Schedule
from gptoss_bento.strict_json import shown

TOKENIZE = "/tokenize"
MODELS = "/v1/models"

M = TypeVar("M", bound=BaseModel)

_ACCEPTED = "input needs one of: prompt, messages, openai_route with openai_input, route with body."
# What could lead a path elsewhere than it says, as it is or once decoded.
_MISLEADING = re.compile(r"\.\.|//|[\\@#\x00-\x20\x7f-\x9f]")


class InputError(ValueError):
    """`input` cannot be run: the job ends FAILED with this text."""


@dataclass(frozen=True)
class Policy:
    """How long a job may run and live, in milliseconds, and whether its priority is low."""

    execution_timeout_ms: int
    ttl_ms: int
    low_priority: bool = False


@dataclass(frozen=True)
class Envelope:
    """An accepted body of `/run` or `/runsync`. `input` is not looked into yet."""

    input: dict[str, Any]
    policy: Policy
    webhook: str | None = None


class OutputFormat(Enum):
    """What the items of a job look like."""

    TOKENS = "tokens"  # worker-vllm's own, up to 2.23
    FRAMES = "frames"  # the engine's answer; streamed: strings of whole SSE frames
    CHUNKS = "chunks"  # the engine's answer; streamed: lists of the parsed frames


@dataclass(frozen=True)
class Models:
    """What the engine serves: names in order, the adapters among them apart."""

    names: tuple[str, ...] = ()
    adapters: frozenset[str] = frozenset()
    context_length: int | None = None  # tokens of prompt and answer together, if known
    served: ServedModel = GPT_OSS


@dataclass(frozen=True)
class EngineRequest:
    """One call of the engine's HTTP API, and how its answer becomes items."""

    method: str
    path: str
    query: str = ""
    body: Mapping[str, Any] | None = None
    stream: bool = False
    format: OutputFormat = OutputFormat.FRAMES
    schedule: Schedule = field(default_factory=Schedule)
    echo: str = ""  # the prompt, if it is wanted before the answer
    show_reasoning: bool = True
    ignored: tuple[str, ...] = ()  # unknown names in the body
    must_fit: bool = False  # vLLM silently shortens an answer for which the context has no room; here it is an error

    @property
    def is_chat(self) -> bool:
        return self.path == CHAT


# --- the envelope ----------------------------------------------------------------------------------------------------


def read_envelope(body: bytes, settings: ServerSettings) -> Envelope:
    """Checks what is around `input`. What the platform ignores is ignored: `s3Config` and unknown fields.

    Raises:
        EnvelopeError: the body is no JSON object, `input` is missing or no object, or a field has the wrong type.
    """
    request, problems = checked(JobRequest, {"input": None, **json_object(body)})
    if request is None:
        raise EnvelopeError("; ".join(sentences(problems)))
    policy = _policy(request.policy or JobPolicy(), settings)
    return Envelope(request.input, policy, request.webhook or request.webhookV2 or None)


def _policy(given: JobPolicy, settings: ServerSettings) -> Policy:
    execution = settings.execution_timeout_ms if given.executionTimeout is None else int(given.executionTimeout)
    ttl = settings.job_ttl_ms if given.ttl is None else int(given.ttl)
    return Policy(execution, ttl, given.lowPriority is True)


# --- the input -------------------------------------------------------------------------------------------------------


def engine_request(given: Mapping[str, Any], settings: ServerSettings, models: Models) -> EngineRequest:
    """Finds out what `input` asks for; the first shape that matches wins.

    Raises:
        InputError: no shape matches, or a field is wrong.
    """
    if given.get("openai_input") or given.get("openai_route") not in (None, ""):
        return _sendable(_openai_request(given, settings, models), settings, models.served, "openai_input")
    if given.get("route") is not None:
        return _sendable(_route_request(given, settings, models), settings, models.served, "body")
    if given.get("messages") is not None or given.get("prompt") is not None:
        return _sendable(_native_request(given, settings, models), settings, models.served)
    raise InputError(" ".join([f"{_ACCEPTED} Got {_keys(given)}.", *meant_shape(given)]))


def _sendable(request: EngineRequest, settings: ServerSettings, model: ServedModel, place: str = "") -> EngineRequest:
    """The request as the engine gets it: held against the same table of fields as requests over HTTP.

    Args:
        request: of the job.
        settings: of the server; they decide what becomes of unknown fields.
        model: that answers it.
        place: where in `input` the fields of the request are; nothing: beside `prompt` or `messages`.
    """
    if request.body is None:
        return request
    if problems := endless_numbers(request.body, place):
        raise InputError(text_of(problems))
    try:
        known = checked_fields(request.path, request.body, model, refuse_unknown=settings.unknown_fields == "refuse")
    except FieldError as error:
        named = place and error.param and str(error).startswith(error.param)
        raise InputError(f"{place}{'.' if named else ': '}{error}" if place else str(error)) from None
    return replace(request, body=known.body, ignored=known.ignored)


def _keys(given: Mapping[str, Any]) -> str:
    return shown(sorted(given)) if given else "no fields"


def _openai_request(given: Mapping[str, Any], settings: ServerSettings, models: Models) -> EngineRequest:
    job = _read(OpenAIJob, given, "openai_input")
    path, query = _permitted(job.openai_route or CHAT, "openai_route", settings)
    method = "POST" if job.openai_input else "GET"
    output = OutputFormat.FRAMES if settings.raw_openai_output else OutputFormat.CHUNKS
    return _forwarded(method, path, query, job.openai_input, output, settings, models)


def _route_request(given: Mapping[str, Any], settings: ServerSettings, models: Models) -> EngineRequest:
    job = _read(RouteJob, given, "body")
    path, query = _permitted(job.route or "", "route", settings)
    method = job.method or ("GET" if job.body is None else "POST")
    return _forwarded(method, path, query, job.body, OutputFormat.FRAMES, settings, models)


def _read(model: type[M], given: Mapping[str, Any], place: str) -> M:
    """A job that is a request of a route, whose own fields are in `place`."""
    job, found = checked(model, given)
    problems = [*sentences(found), *without_effect(given, place), *unknown_fields(given)]
    if job is None or problems:
        raise InputError(text_of(problems))
    return job


def _forwarded(
    method: str,
    path: str,
    query: str,
    body: Mapping[str, Any] | None,
    output: OutputFormat,
    settings: ServerSettings,
    models: Models,
) -> EngineRequest:
    if path == MODELS:
        method, body = "GET", None  # old READMEs of worker-vllm show it as a POST
    if method == "GET":
        body = None
    elif path.startswith("/v1/") and models.names:
        body = {**(body or {}), "model": (body or {}).get("model") or models.names[0]}
    stream = body is not None and body.get("stream") is True
    return EngineRequest(method, path, query, body, stream, output, _default_schedule(settings))


def _permitted(route: str, name: str, settings: ServerSettings) -> tuple[str, str]:
    """Path and query of a route, checked against the operator's ROUTE_ALLOWLIST."""
    if _is_misleading(route) or not route.startswith("/"):
        raise InputError(f"Invalid route: {name} must be a plain path such as {CHAT}, got {shown(route)}.")
    path, _, query = route.partition("?")
    path = unquote(path)
    path = path.removeprefix("/openai") if path.startswith("/openai/") else path
    if not any(fnmatchcase(path, pattern) for pattern in settings.route_allowlist):
        allowed = ", ".join(settings.route_allowlist)
        raise InputError(f"Invalid route: {name} must be one of {allowed}, got {shown(route)}.")
    return path, query


def _is_misleading(route: str) -> bool:
    """Also looks below several layers of percent-encoding."""
    while not _MISLEADING.search(route) and strict_json.encodable(route):
        decoded = unquote(route, errors="strict") if _decodes(route) else "\\"
        if decoded == route:
            return False
        route = decoded
    return True


def _decodes(text: str) -> bool:
    try:
        unquote(text, errors="strict")
    except UnicodeDecodeError:
        return False
    return True


# --- native jobs -----------------------------------------------------------------------------------------------------


def _native_request(given: Mapping[str, Any], settings: ServerSettings, models: Models) -> EngineRequest:
    problems = [*unknown_fields(given), *without_route(given)]
    fields = with_parameters(_native_fields(given), given, problems)
    chat, stream = "messages" in fields, fields.get("stream") is True
    job, found = checked(NativeJob, fields)
    problems = [text_of([*problems, *sentences(found)])] if problems or found else []
    parameters = _parameters(fields, settings, chat, stream, problems)
    if job is None or problems:
        raise InputError(" ".join(problems))
    body = {**_model(job, models), **parameters}
    body |= {"messages": job.messages} if chat else {"prompt": job.prompt}
    must_fit = not chat and "truncate_prompt_tokens" not in body
    schedule = _schedule(job, settings)
    request = EngineRequest(
        "POST", CHAT if chat else COMPLETIONS, "", body, stream, schedule=schedule, must_fit=must_fit
    )
    if settings.native_output_format == "openai":
        return replace(request, body=_with_stream(body, stream), schedule=_default_schedule(settings))
    # Token ids are asked for by the job itself, below.
    shown_beside = [name for name in beside_hidden_reasoning(models.served) if name != "return_token_ids"]
    try:
        hidden_reasoning(request.path, body, shown_beside)
    except FieldError as error:
        raise InputError(str(error)) from None
    return _in_tokens(request, job.prompt or "")


def _native_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """Prompt or messages, and what is beside them. A null means: not given.

    Messages win. A string in place of them is a prompt (worker-vllm up to 2.23); a prompt may be wanted as a chat.
    """
    fields = {name: value for name in NativeJob.model_fields if (value := given.get(name)) is not None}
    messages = fields.get("messages")
    if isinstance(messages, str) and messages:
        fields["prompt"] = fields.pop("messages")
    elif messages is not None:
        fields.pop("prompt", None)
    prompt = fields.get("prompt")
    if isinstance(prompt, str) and prompt and fields.get("apply_chat_template") is True:
        fields["messages"] = [{"role": "user", "content": fields.pop("prompt")}]
    return fields


def _in_tokens(request: EngineRequest, prompt: str) -> EngineRequest:
    """The request that lets tokens be counted. What the engine would then leave out is added afterwards."""
    body = dict(request.body or {})
    # vLLM leaves the prompt out of an echo when it returns token ids, and token ids when it hides the reasoning.
    echo = prompt if not request.is_chat and body.pop("echo", False) else ""
    show_reasoning = body.pop("include_reasoning", True)
    if request.stream:
        body.pop("stream_options", None)
        body["stream"] = True
    if request.stream or request.is_chat:  # a chat's token ids say which channel its text is from
        body["return_token_ids"] = True
    return replace(request, body=body, format=OutputFormat.TOKENS, echo=echo, show_reasoning=show_reasoning)


def _with_stream(body: dict[str, Any], stream: bool) -> dict[str, Any]:
    return body | {"stream": True} if stream else {name: body[name] for name in body if name != "stream_options"}


def _parameters(
    fields: Mapping[str, Any], settings: ServerSettings, chat: bool, stream: bool, problems: list[str]
) -> dict[str, Any]:
    given = fields.get("sampling_params", {})
    if not isinstance(given, dict):
        return {}  # which is a problem already
    try:
        return sampling.engine_parameters(
            given, chat=chat, stream=stream, default_max_tokens=settings.native_default_max_tokens
        )
    except ValueError as error:
        problems.append(str(error))
        return {}


def _model(job: NativeJob, models: Models) -> dict[str, str]:
    """`input.model` counts only where it names an adapter. worker-vllm ignores any other, and so do we."""
    return {"model": job.model} if isinstance(job.model, str) and job.model in models.adapters else {}


def _default_schedule(settings: ServerSettings) -> Schedule:
    return Schedule(
        settings.default_batch_size, settings.default_min_batch_size, settings.default_batch_size_growth_factor
    )


def _schedule(job: NativeJob, settings: ServerSettings) -> Schedule:
    default = _default_schedule(settings)
    return Schedule(
        job.max_batch_size or default.largest,
        job.min_batch_size or default.smallest,
        job.batch_size_growth_factor or default.growth,
    )
