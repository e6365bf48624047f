"""Objects and events of /v1/responses against what OpenAI publishes: the models of its SDK, taken strictly.

Strictly is more than pydantic's `strict`: the SDK's models let unknown fields pass, and null wherever a field is
optional. Clients whose schemas are closed refuse both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from openai.types.responses import Response, ResponseItem, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter, ValidationError

_RESPONSE: TypeAdapter[Any] = TypeAdapter(Response)
_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
_ITEM: TypeAdapter[Any] = TypeAdapter(ResponseItem)

NOT_OF_THE_SDK = {
    "store",  # OpenAI's API answers these three, and its SDK has them in no model
    "presence_penalty",
    "frequency_penalty",
    "usage.output_tokens_details.tool_output_tokens",  # a number, which every client's schema lets pass
    "custom_tool_call.status",  # the SDK has it for listed items alone
    "response.function_call_arguments.done.name",  # which the SDK has required for years
}
NOT_HERE = {  # what such a field speaks of was not asked for, is refused, or is of a hosted service
    *("access_programs", "conversation", "image", "input_transformations", "moderation", "prompt", "tool_usage"),
    *("prompt_cache_diagnostics", "prompt_cache_options", "prompt_cache_retention"),
}
NULLABLE = {
    *("completed_at", "error", "incomplete_details", "instructions", "max_output_tokens", "max_tool_calls"),
    *(
        "conversation",
        "previous_response_id",
        "prompt_cache_key",
        "safety_identifier",
        "usage",
        "user",
        "reasoning.summary",
    ),
    *("tools.description", "tools.parameters", "tools.strict", "text.format.description"),
}


def response_faults(made: Mapping[str, Any]) -> list[str]:
    """What is wrong with the object of a response."""
    fields = {field.alias or name for name, field in Response.model_fields.items()}
    missing = [f"missing: {name}" for name in sorted(fields - made.keys() - NOT_HERE)]
    inner = [fault for item in made["output"] for fault in item_faults(item)]
    return [*missing, *_faults(_RESPONSE, made), *inner]


def item_faults(item: Mapping[str, Any]) -> list[str]:
    """What is wrong with an item, as a list of items has it."""
    return [*([] if item.get("status") else [f"{item['type']}: no status"]), *_faults(_ITEM, item)]


def stream_faults(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong with the events of a whole stream, each alone and together."""
    return [*(fault for event in events for fault in _event_faults(event)), *_faults_together(events)]


def _event_faults(event: Mapping[str, Any]) -> Iterator[str]:
    rest = {name: value for name, value in event.items() if name not in ("response", "item")}
    found = [*_invalid(_EVENT, event), *_nulls(rest)]
    if "response" in event:
        found += response_faults(event["response"])
    if "item" in event:
        found += item_faults(event["item"])
    yield from (f"{event['type']}: {fault}" for fault in found)


def _faults_together(events: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if [event["sequence_number"] for event in events] != list(range(len(events))):
        yield "sequence numbers have a gap"
    final, items = events[-1]["response"], _of(events, "response.output_item.done")
    if final["output"] != items:
        yield "the final object has other items than the stream"
    ids = [item["id"] for item in _of(events, "response.output_item.added")]
    if ids != [item["id"] for item in items]:
        yield "items change their ids"
    yield from (
        f"{event['type']} is of no item"
        for event in events
        if "item_id" in event and ids[event["output_index"]] != event["item_id"]
    )
    if {event["response"]["id"] for event in events if "response" in event} != {final["id"]}:
        yield "the response changes its id"


def _of(events: Sequence[Mapping[str, Any]], kind: str) -> list[Any]:
    return [event["item"] for event in events if event["type"] == kind]


def _faults(adapter: TypeAdapter[Any], value: Mapping[str, Any]) -> list[str]:
    return [*_invalid(adapter, value), *_nulls(value)]


def _invalid(adapter: TypeAdapter[Any], value: Any) -> list[str]:
    try:
        made = adapter.validate_python(value, strict=True)
    except ValidationError as error:
        return [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
    return [f"unknown: {name}" for name in _unknown(made, "") if name not in NOT_OF_THE_SDK]


def _unknown(value: Any, place: str) -> Iterator[str]:
    """The fields that a model does not have, at any depth, by the type of what has them."""
    if isinstance(value, list):
        for each in value:
            yield from _unknown(each, place)
    if not isinstance(value, BaseModel):
        return
    kind = getattr(value, "type", None)
    inner = "" if isinstance(value, Response) else f"{kind}." if isinstance(kind, str) else place
    yield from (f"{inner}{name}" for name in value.model_extra or {})
    for name in type(value).model_fields:
        yield from _unknown(getattr(value, name), f"{inner}{name}.")


def _nulls(value: Any, place: str = "") -> list[str]:
    if isinstance(value, list):
        return [fault for each in value for fault in _nulls(each, place)]
    if isinstance(value, Mapping):
        return [fault for name, each in value.items() for fault in _nulls(each, f"{place}.{name}".lstrip("."))]
    return [f"null: {place}"] if value is None and place not in NULLABLE else []
