"""The objects of /v1/conversations, as OpenAI's schema has them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gptoss_bento.responses.objects import whole_item, whole_part
from gptoss_bento.state.conversation import StoredConversation
from gptoss_bento.strict_json import dumps, loads_stored

Fields = dict[str, Any]


def conversation_object(found: StoredConversation) -> Fields:
    """A conversation as a client gets it."""
    return {
        "id": found.id,
        "object": "conversation",
        "created_at": found.created_at // 1000,
        "metadata": loads_stored(found.metadata),
    }


def deleted_object(conversation_id: str) -> Fields:
    """What is left of one that was deleted."""
    return {"id": conversation_id, "object": "conversation.deleted", "deleted": True}


def item_list(texts: Sequence[str], *, has_more: bool) -> str:
    """A page of items, as JSON. OpenAI's `first_id` and `last_id` are texts: of an empty page they are empty.

    Args:
        texts: of the items, as JSON.
        has_more: whether there are more items.
    """
    items = [conversation_item(loads_stored(text)) for text in texts]
    first, last = (items[0]["id"], items[-1]["id"]) if items else ("", "")
    return dumps({"object": "list", "data": items, "first_id": first, "last_id": last, "has_more": has_more})


def conversation_item(item: Mapping[str, Any]) -> Fields:
    """An item with the fields that OpenAI's schema wants of one in a conversation.

    What is stored is what the client or the engine wrote, and what prompts are made from.
    """
    kind = item.get("type") or "message"
    made = {"type": kind, **whole_item({**item, "content": _parts(item)})}
    if kind in ("message", "function_call_output"):
        made.setdefault("status", "completed")
    if kind == "reasoning":
        made.setdefault("summary", [])
    return made


def _parts(item: Mapping[str, Any]) -> Any:
    content = item.get("content")
    kind = {"type": "output_text" if item.get("role") == "assistant" else "input_text"}
    if isinstance(content, str):
        return [{**kind, "text": content}]
    if not isinstance(content, list):
        return content
    parts = [{"text": part} if isinstance(part, str) else part for part in content]
    return [{**kind, **whole_part(part)} for part in parts if isinstance(part, dict)]
