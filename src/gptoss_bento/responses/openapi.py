"""The routes of this package that vLLM does not describe, as OpenAPI. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptoss_bento.http import idempotency
from gptoss_bento.http.paths import COMPACT
from gptoss_bento.responses.conversation_openapi import conversation_operations

_ALL = "/v1/responses"
_ITEM = f"{_ALL}/{{response_id}}"
_ID = {"name": "response_id", "in": "path", "required": True, "schema": {"type": "string"}}
_UNKNOWN = {"404": {"description": "This key has no such response."}}


def _query(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema}


_LIST_PARAMETERS: list[Mapping[str, Any]] = [
    _query("order", {"enum": ["asc", "desc"], "default": "desc"}),
    _query("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}),
    _query("after", {"type": "string", "description": "The id of the item before the first."}),
]
_COMPACT_BODY = {
    "type": "object",
    "properties": {
        "model": {"type": "string"},
        "input": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]},
        "previous_response_id": {"type": "string"},
        "instructions": {"type": "string"},
    },
}
_REPEATED = {
    "409": {"description": "The first request with this Idempotency-Key is still being answered."},
    "410": {"description": "The response of this Idempotency-Key is not kept any more."},
    "422": {"description": "This Idempotency-Key came with another request."},
}
_OPERATIONS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    (COMPACT, "post"): {
        "summary": "Let the model sum a conversation up",
        "requestBody": {"required": True, "content": {"application/json": {"schema": _COMPACT_BODY}}},
        "responses": {
            "200": {"description": "The user's messages, and an item in place of all the rest."},
            "422": {"description": "There is no whole summary."},
            **_UNKNOWN,
        },
    },
    (_ITEM, "delete"): {
        "summary": "Delete a stored response",
        "parameters": [_ID],
        "responses": {"200": {"description": "It is deleted."}, **_UNKNOWN},
    },
    (f"{_ITEM}/input_items", "get"): {
        "summary": "List the items of a stored response's request",
        "parameters": [_ID, *_LIST_PARAMETERS],
        "responses": {"200": {"description": "A page of the list."}, **_UNKNOWN},
    },
    **conversation_operations(_LIST_PARAMETERS),
}


def with_stored_responses(paths: Mapping[str, Any], tag: str) -> dict[str, Any]:
    """The paths of vLLM's API with what is added to them.

    Args:
        paths: of vLLM's document; none while there is no engine.
        tag: of the operations.
    """
    made = dict(paths)
    servers = {"servers": made[_ITEM]["servers"]} if "servers" in made.get(_ITEM, {}) else {}
    for (path, method), operation in _OPERATIONS.items() if _ITEM in made else ():
        made[path] = {**servers, **made.get(path, {}), method: {**operation, "tags": [tag]}}
    if "post" in made.get(_ALL, {}):
        made[_ALL] = {**made[_ALL], "post": _repeatable(made[_ALL]["post"])}
    return made


def _repeatable(operation: Mapping[str, Any]) -> dict[str, Any]:
    parameters = [*operation.get("parameters", ()), idempotency.PARAMETER]
    return {**operation, "parameters": parameters, "responses": {**operation.get("responses", {}), **_REPEATED}}
