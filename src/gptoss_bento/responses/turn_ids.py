"""The ids of the items that a turn adds to its conversation. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptoss_bento.http.errors import FieldError
from gptoss_bento.responses.request import is_reference
from gptoss_bento.strict_json import shown


def refuse_taken(given: Sequence[Any], history: Sequence[Any]) -> None:
    """Refuses a new item under the id of another: the conversation has an item of each id once, and would drop it.

    An item that is only named may be one of the conversation: it is read once, and not added again.

    Args:
        given: the items of the turn's request, as they were sent.
        history: those of the conversation.

    Raises:
        FieldError: it names the place of the id.
    """
    seen = {item.get("id") for item in history}
    for number, item in enumerate(given):
        item_id = item.get("id") if isinstance(item, dict) else None
        if not isinstance(item_id, str):
            continue
        if item_id in seen and not is_reference(item):
            raise _taken(f"input[{number}].id", item_id)
        seen.add(item_id)


def _taken(where: str, item_id: str) -> FieldError:
    why = "send the new items alone, or name a stored one as an item_reference"
    return FieldError(where, f"{where} is the id of another item of this conversation, {shown(item_id)}: {why}.")
