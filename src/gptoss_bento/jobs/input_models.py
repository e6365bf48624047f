"""What clients send to the job API: the models that check it, describe it in OpenAPI and type `generate`. Pure.

Two things are looked into by themselves later, and are any object until then: `input`, whose errors make a job FAILED
where those around it are HTTP errors, and `sampling_params`, whose names depend on whether the job is a chat.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, NotRequired
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    SkipValidation,
    ValidationInfo,
    WrapValidator,
)
from pydantic_core import CoreSchema
from pydantic_core.core_schema import json_or_python_schema
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from gptoss_bento.config.settings import WEEK_MS
from gptoss_bento.jobs.field_types import JsonObject, Object, Switch
from gptoss_bento.jobs.input_problems import Must, wrong
from gptoss_bento.jobs.sampling import ChatParameters, CompletionParameters

_INVALID_ROUTE = "Invalid route: {name} must be {words}, got {value}"


@dataclass(frozen=True)
class DescribedAs:
    """An annotation: the type by which the OpenAPI document describes an object that is looked into later."""

    kind: Any

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # The OpenAPI document takes what is for JSON. What is checked here was parsed already, by strict_json.
        return json_or_python_schema(json_schema=handler.generate_schema(self.kind), python_schema=handler(source))


def _null_if_falsy(value: Any) -> Any:
    return value or None


_MaybeObject = Annotated[JsonObject | None, BeforeValidator(_null_if_falsy), Must("an object")]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


# --- native jobs -----------------------------------------------------------------------------------------------------


def _instead_of_content(nothing: None, info: ValidationInfo) -> None:
    if info.data.get("role", "assistant") != "assistant":  # an assistant may have called tools
        raise ValueError
    return nothing


class Message(TypedDict):
    """One turn of a chat, as OpenAI's API takes it; further fields are passed on."""

    role: Annotated[
        Literal["system", "developer", "user", "assistant", "tool"],
        Must("one of system, developer, user, assistant, tool"),
    ]
    content: NotRequired[
        Annotated[
            str | list[Any] | Annotated[None, AfterValidator(_instead_of_content)], Must("a string or a list of parts")
        ]
    ]


def _message(given: Any, check: Callable[[Any], object]) -> Any:
    """Passes a message on as it is. What is missing is null, so that it is named like what is wrong."""
    if not isinstance(given, dict):
        raise wrong("an object with role and content")
    check(given if given.keys() >= {"role", "content"} else {"role": None, "content": None, **given})
    return given


def _list_of_messages(given: Any) -> Any:
    if not isinstance(given, list):
        raise wrong("a non-empty list of messages")
    if not given:
        raise wrong("a non-empty list")
    return given


Messages = Annotated[
    list[Annotated[Message, WrapValidator(_message)]], Field(min_length=1), BeforeValidator(_list_of_messages)
]


class Conversation(_Model):
    """What a native job is about. Messages win over a prompt."""

    prompt: Annotated[str, Field(min_length=1), Must("a non-empty string")] | None = Field(
        None, description="A text to be continued."
    )
    messages: Messages | None = Field(
        None, description="A chat, as the OpenAI API takes it; wins over prompt. Each has a role and a content."
    )
    apply_chat_template: Switch | None = Field(None, description="Whether prompt is a chat of one message.")
    sampling_params: (
        Annotated[JsonObject, DescribedAs(ChatParameters | CompletionParameters), Must("an object")] | None
    ) = Field(
        None,
        description="max_tokens, temperature, top_p, top_k, stop, seed and the further names of vLLM, and for "
        "messages those of the OpenAI API. Unknown names are errors.",
    )
    model: SkipValidation[str | None] = Field(None, description="An adapter's name; any other means the model itself.")


def _number(value: Any) -> Any:
    """A falsy value is the server's default, and a text may hold the number, as worker-vllm has it."""
    try:
        return float(value) if value and isinstance(value, str) else value or None
    except ValueError:
        return value


Size = Annotated[
    Annotated[float, Field(ge=0, allow_inf_nan=False)] | None,
    BeforeValidator(_number),
    Must("a number of at least 0"),
]


class NativeJob(Conversation):
    """`input` of a job in the manner of worker-vllm."""

    stream: Switch | None = Field(None, description="Whether the output comes in many items, for /stream.")
    max_batch_size: Size = Field(None, description="Most tokens of an item of a stream.")
    min_batch_size: Size = Field(None, description="Tokens of the first item.")
    batch_size_growth_factor: Size = Field(None, description="How much larger each item is than the one before.")


# --- jobs that are requests of the engine's routes -------------------------------------------------------------------


class OpenAIJob(_Model):
    """`input` of a job that is a request of the OpenAI API."""

    openai_input: _MaybeObject = Field(None, description="A request of the OpenAI API.")
    openai_route: Annotated[str | None, BeforeValidator(_null_if_falsy), Must("a string", _INVALID_ROUTE)] = Field(
        None, description="Where openai_input goes. Default: /v1/chat/completions; alone: a GET."
    )


def _upper_case(method: Any) -> Any:
    return method.upper() if isinstance(method, str) else method


class RouteJob(_Model):
    """`input` of a job that is a request of any route of the engine."""

    route: Annotated[str, Must("a string", _INVALID_ROUTE)] | None = Field(
        None, description="A route of the engine that ROUTE_ALLOWLIST permits."
    )
    body: Object | None = Field(None, description="What is sent to route.")
    method: (
        Annotated[Literal["GET", "POST"], BeforeValidator(_upper_case), Must("GET or POST", _INVALID_ROUTE)] | None
    ) = Field(None, description="Default: POST with a body, else GET.")


class JobInput(NativeJob, OpenAIJob, RouteJob):
    """What to do. The first that is there wins: openai_input, openai_route, route, messages, prompt.

    Sampling parameters may also be given beside prompt or messages. A name that is none of these makes the job FAILED.
    """


# --- what is around the input ----------------------------------------------------------------------------------------


def _within(low: int, value: Any) -> Any:
    """Out of range is moved to the nearest bound, as RunPod does: its own examples send 3000."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return int(min(max(value, low), WEEK_MS))


_MILLISECONDS = Must("a number of milliseconds")


class JobPolicy(_Model):
    """How long a job may run and live, in milliseconds. A number out of range means the nearest bound."""

    executionTimeout: (  # noqa: N815  # RunPod's name
        Annotated[float, BeforeValidator(partial(_within, 5_000)), _MILLISECONDS] | None
    ) = Field(None, description="Of work, from 5000.")
    ttl: Annotated[float, BeforeValidator(partial(_within, 10_000)), _MILLISECONDS] | None = Field(
        None, description="From now until all is forgotten, from 10000."
    )
    lowPriority: Switch | None = Field(None, description="Whether it runs after all others.")  # noqa: N815


def _policy_object(given: Any) -> Any:
    if not isinstance(given, dict):
        raise wrong("an object")
    return given


def _used_url(url: str, info: ValidationInfo) -> str:
    if url and not info.data.get("webhook") and not _is_url(url):
        raise wrong("an http or https URL")
    return url


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        _ = url.port  # raises for what is no port
    except ValueError:
        return False
    plain = text.isascii() and text.isprintable() and " " not in text
    return plain and url.scheme in ("http", "https") and bool(url.hostname) and len(text) <= 8192


Url = Annotated[
    str, Must("a URL"), AfterValidator(_used_url), Field(json_schema_extra={"format": "uri", "maxLength": 8192})
]


def _required(given: Any) -> Any:
    if given is None:
        raise wrong("a JSON object", "'{name}' is required and must be {words}")
    return given


class JobRequest(_Model):
    """The body of `/run` and `/runsync`. Further fields are ignored."""

    input: Annotated[
        JsonObject,
        DescribedAs(JobInput),
        Must("a JSON object", "'{name}' is required and must be {words}, got {value}"),
        BeforeValidator(_required),
    ]
    policy: Annotated[JobPolicy, BeforeValidator(_policy_object)] | None = None
    webhook: Url | None = Field(None, description="Gets the job at its end. A public address.")
    webhookV2: Url | None = Field(None, description="Used if there is no webhook.")  # noqa: N815  # RunPod's name
    # Its value may be a secret, and is not shown.
    s3Config: Annotated[  # noqa: N815  # RunPod's name
        JsonObject | None, BeforeValidator(_null_if_falsy), Must("an object", "{name} must be {words}")
    ] = Field(None, description="Ignored.")
