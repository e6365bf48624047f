"""From the body of `/run` to a request that the engine understands. Pure.

Two kinds of wrong input: what is around `input` is an HTTP error (`EnvelopeError`), what is inside it makes the job
FAILED (`InputError`), as on RunPod. Both name every wrong field with its value and say what would be right.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import unquote, urlsplit

from gptoss_bento import strict_json
from gptoss_bento.config.settings import WEEK_MS, ServerSettings
from gptoss_bento.http.json_body import EnvelopeError, json_object
from gptoss_bento.jobs import sampling
from gptoss_bento.jobs.output.batching import Schedule
from gptoss_bento.strict_json import shown

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
TOKENIZE = "/tokenize"
MODELS = "/v1/models"

_ROLES = ("system", "developer", "user", "assistant", "tool")
_ACCEPTED = "input needs one of: prompt, messages, openai_route with openai_input, route with body."
# What could lead a path elsewhere than it says, as it is or once decoded.
_MISLEADING = re.compile(r"\.\.|//|[\\@#\x00-\x20\x7f-\x9f]")


class InputError(ValueError):
    """`input` cannot be run: the job ends FAILED with this text."""


@dataclass(frozen=True)
class Policy:
    """How long a job may run and live, in milliseconds, and whether it stands back."""

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
    echo: str = ""  # the prompt, where it was asked to stand before the answer
    show_reasoning: bool = True
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
    fields = json_object(body)
    problems: list[str] = []
    if not isinstance(fields.get("input"), dict):
        got = f", got {shown(fields['input'])}" if fields.get("input") is not None else ""
        problems.append(f"'input' is required and must be a JSON object{got}")
    if not isinstance(fields.get("s3Config") or {}, dict):
        problems.append("s3Config must be an object")  # its value may be a secret
    policy = _policy(fields.get("policy"), settings, problems)
    webhook = _webhook(fields, problems)
    if problems:
        raise EnvelopeError("; ".join(problems))
    return Envelope(fields["input"], policy, webhook)


def _policy(given: Any, settings: ServerSettings, problems: list[str]) -> Policy:
    if given is not None and not isinstance(given, dict):
        problems.append(f"policy must be an object, got {shown(given)}")
    fields = given if isinstance(given, dict) else {}
    execution = _milliseconds(fields, "executionTimeout", settings.execution_timeout_ms, 5_000, problems)
    ttl = _milliseconds(fields, "ttl", settings.job_ttl_ms, 10_000, problems)
    low = fields.get("lowPriority")
    if low is not None and not isinstance(low, bool):
        problems.append(f"policy.lowPriority must be true or false, got {shown(low)}")
    return Policy(execution, ttl, low is True)


def _milliseconds(fields: Mapping[str, Any], name: str, default: int, low: int, problems: list[str]) -> int:
    """Out of range is moved to the nearest bound; as RunPod does: its own examples send 3000."""
    value = fields.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        problems.append(f"policy.{name} must be a number of milliseconds, got {shown(value)}")
        return default
    return int(min(max(value, low), WEEK_MS))


def _webhook(fields: Mapping[str, Any], problems: list[str]) -> str | None:
    name = "webhook" if fields.get("webhook") else "webhookV2"
    value = fields.get("webhook") or fields.get("webhookV2")
    for key in ("webhook", "webhookV2"):
        if fields.get(key) is not None and not isinstance(fields[key], str):
            problems.append(f"{key} must be a URL, got {shown(fields[key])}")
            return None
    if value and not _is_url(value):
        problems.append(f"{name} must be an http or https URL, got {shown(value)}")
    return value or None


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        _ = url.port  # raises for what is no port
    except ValueError:
        return False
    plain = text.isascii() and text.isprintable() and " " not in text
    return plain and url.scheme in ("http", "https") and bool(url.hostname) and len(text) <= 8192


# --- the input -------------------------------------------------------------------------------------------------------


def engine_request(given: Mapping[str, Any], settings: ServerSettings, models: Models) -> EngineRequest:
    """Finds out what `input` asks for; the first shape that matches wins.

    Raises:
        InputError: no shape matches, or a field is wrong.
    """
    if given.get("openai_input") or given.get("openai_route") not in (None, ""):
        return _openai_request(given, settings, models)
    if given.get("route") is not None:
        return _route_request(given, settings, models)
    if given.get("messages") is not None or given.get("prompt") is not None:
        return _native_request(given, settings, models)
    raise InputError(f"{_ACCEPTED} Got {_keys(given)}.")


def _keys(given: Mapping[str, Any]) -> str:
    return shown(sorted(given)) if given else "no fields"


def _openai_request(given: Mapping[str, Any], settings: ServerSettings, models: Models) -> EngineRequest:
    body = given.get("openai_input")
    if body and not isinstance(body, dict):
        raise InputError(f"openai_input must be an object, got {shown(body)}.")
    path, query = _permitted(given.get("openai_route") or CHAT, "openai_route", settings)
    output = OutputFormat.FRAMES if settings.raw_openai_output else OutputFormat.CHUNKS
    return _forwarded("POST" if body else "GET", path, query, body or None, output, settings, models)


def _route_request(given: Mapping[str, Any], settings: ServerSettings, models: Models) -> EngineRequest:
    body, method = given.get("body"), given.get("method")
    path, query = _permitted(given["route"], "route", settings)
    if body is not None and not isinstance(body, dict):
        raise InputError(f"body must be an object, got {shown(body)}.")
    if method is None:
        method = "GET" if body is None else "POST"
    if not isinstance(method, str) or method.upper() not in ("GET", "POST"):
        raise InputError(f"Invalid route: method must be GET or POST, got {shown(method)}.")
    return _forwarded(method.upper(), path, query, body, OutputFormat.FRAMES, settings, models)


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


def _permitted(route: Any, name: str, settings: ServerSettings) -> tuple[str, str]:
    """Path and query of a route, checked against the operator's ROUTE_ALLOWLIST."""
    if not isinstance(route, str):
        raise InputError(f"Invalid route: {name} must be a string, got {shown(route)}.")
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
    problems: list[str] = []
    stream = _switch(given, "stream", problems)
    templated = _switch(given, "apply_chat_template", problems)
    prompt, messages = _conversation(given, templated, problems)
    schedule = _schedule(given, settings, problems)
    parameters = _parameters(given, settings, messages is not None, stream, problems)
    if problems:
        raise InputError(" ".join(problems))
    body = {**_model(given, models), **parameters}
    body |= {"messages": messages} if messages is not None else {"prompt": prompt}
    path = CHAT if messages is not None else COMPLETIONS
    must_fit = messages is None and "truncate_prompt_tokens" not in body
    request = EngineRequest("POST", path, "", body, stream, schedule=schedule, must_fit=must_fit)
    if settings.native_output_format == "openai":
        return replace(request, body=_with_stream(body, stream), schedule=_default_schedule(settings))
    return _in_tokens(request, prompt or "")


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


def _conversation(
    given: Mapping[str, Any], templated: bool, problems: list[str]
) -> tuple[str | None, list[Any] | None]:
    """Prompt or messages; the latter win. A string in place of messages is a prompt (worker-vllm up to 2.23)."""
    messages = given.get("messages")
    if isinstance(messages, list):
        problems.extend(_message_problems(messages))
        return None, messages
    name, text = ("messages", messages) if messages is not None else ("prompt", given.get("prompt"))
    wanted = "a non-empty list of messages" if name == "messages" else "a non-empty string"
    if not isinstance(text, str) or not text:
        problems.append(f"{name} must be {wanted}, got {shown(text)}.")
        return "", None
    return (None, [{"role": "user", "content": text}]) if templated else (text, None)


def _message_problems(messages: list[Any]) -> list[str]:
    if not messages:
        return ["messages must be a non-empty list, got []."]
    return [problem for i, message in enumerate(messages) if (problem := _message_problem(f"messages[{i}]", message))]


def _message_problem(name: str, message: Any) -> str | None:
    if not isinstance(message, dict):
        return f"{name} must be an object with role and content, got {shown(message)}."
    role, content = message.get("role"), message.get("content")
    if role not in _ROLES:
        return f"{name}.role must be one of {', '.join(_ROLES)}, got {shown(role)}."
    if content is None and role == "assistant":
        return None
    if not isinstance(content, str | list):
        return f"{name}.content must be a string or a list of parts, got {shown(content)}."
    return None


def _switch(given: Mapping[str, Any], name: str, problems: list[str]) -> bool:
    value = given.get(name)
    if value is not None and not isinstance(value, bool):
        problems.append(f"{name} must be true or false, got {shown(value)}.")
    return value is True


def _parameters(
    given: Mapping[str, Any], settings: ServerSettings, chat: bool, stream: bool, problems: list[str]
) -> dict[str, Any]:
    parameters = given.get("sampling_params")
    if parameters is not None and not isinstance(parameters, dict):
        problems.append(f"sampling_params must be an object, got {shown(parameters)}.")
        return {}
    try:
        return sampling.engine_parameters(
            parameters or {}, chat=chat, stream=stream, default_max_tokens=settings.native_default_max_tokens
        )
    except ValueError as error:
        problems.append(str(error))
        return {}


def _model(given: Mapping[str, Any], models: Models) -> dict[str, str]:
    """`input.model` counts only where it names an adapter. worker-vllm ignores any other, and so do we."""
    named = given.get("model")
    return {"model": named} if isinstance(named, str) and named in models.adapters else {}


def _default_schedule(settings: ServerSettings) -> Schedule:
    return Schedule(
        settings.default_batch_size, settings.default_min_batch_size, settings.default_batch_size_growth_factor
    )


def _schedule(given: Mapping[str, Any], settings: ServerSettings, problems: list[str]) -> Schedule:
    default = _default_schedule(settings)
    return Schedule(
        _size(given, "max_batch_size", default.largest, problems),
        _size(given, "min_batch_size", default.smallest, problems),
        _size(given, "batch_size_growth_factor", default.growth, problems),
    )


def _size(given: Mapping[str, Any], name: str, default: float, problems: list[str]) -> float:
    """A falsy value is the server's default; a text may hold the number."""
    value = given.get(name)
    number = _number(value) if value else 0.0
    if number is None or number < 0:
        problems.append(f"{name} must be a number of at least 0, got {shown(value)}.")
        return default
    return number or default


def _number(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
