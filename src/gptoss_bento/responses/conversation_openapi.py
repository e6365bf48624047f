"""The routes of conversations, as OpenAPI. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptoss_bento.http.paths import CONVERSATIONS

_ONE = f"{CONVERSATIONS}/{{conversation_id}}"
_ITEMS = f"{_ONE}/items"
_ITEM = f"{_ITEMS}/{{item_id}}"
_ID = {"name": "conversation_id", "in": "path", "required": True, "schema": {"type": "string"}}
_ITEM_ID = {"name": "item_id", "in": "path", "required": True, "schema": {"type": "string"}}
_UNKNOWN = {"404": {"description": "This key has no such conversation or item."}}
_LOCKED = {"409": {"description": "conversation_locked: another request is at work in it."}}
_LIST_OF_ITEMS = {"type": "array", "maxItems": 20, "items": {"type": "object"}}
_METADATA = {"type": "object", "maxProperties": 16, "additionalProperties": {"type": "string", "maxLength": 512}}


def _operation(
    summary: str,
    parameters: list[Mapping[str, Any]],
    body: Mapping[str, Any] | None = None,
    errors: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    made: dict[str, Any] = {"summary": summary, "parameters": parameters}
    if body:
        schema = {"type": "object", "properties": body, "additionalProperties": False}
        made["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    made["responses"] = {"200": {"description": "Done."}, **(errors if errors is not None else _UNKNOWN)}
    return made


def conversation_operations(list_parameters: list[Mapping[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """The operations, by path and method.

    Args:
        list_parameters: of a list of items.
    """
    both = {"items": _LIST_OF_ITEMS, "metadata": _METADATA}
    return {
        (CONVERSATIONS, "post"): _operation("Make a conversation", [], both, {}),
        (_ONE, "get"): _operation("Retrieve a conversation", [_ID]),
        (_ONE, "post"): _operation("Replace the metadata of a conversation", [_ID], {"metadata": _METADATA}),
        (_ONE, "delete"): _operation("Delete a conversation with its items", [_ID]),
        (_ITEMS, "post"): _operation(
            "Add items to a conversation", [_ID], {"items": _LIST_OF_ITEMS}, {**_UNKNOWN, **_LOCKED}
        ),
        (_ITEMS, "get"): _operation("List the items of a conversation", [_ID, *list_parameters]),
        (_ITEM, "get"): _operation("Retrieve an item of a conversation", [_ID, _ITEM_ID]),
        (_ITEM, "delete"): _operation(
            "Delete an item of a conversation", [_ID, _ITEM_ID], errors={**_UNKNOWN, **_LOCKED}
        ),
    }
