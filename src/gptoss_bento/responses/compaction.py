"""The item of a conversation that was compacted, and what the model reads of it. Pure.

It carries the summary itself, so any worker and replica reads it, and nothing of it is stored.
"""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Mapping
from typing import Any

from gptoss_bento.http.errors import FieldError

Fields = dict[str, Any]

KIND = "compaction"
_INTRODUCTION = "This is a summary of the conversation so far, in place of the messages that are not here:\n\n"
_PLAIN = "gptoss-bento-1."


def compaction_item(summary: str) -> Fields:
    """The item in place of what was summed up."""
    return {"id": f"cmp_{uuid.uuid4().hex}", "type": KIND, "encrypted_content": seal(summary)}


def is_compaction(item: Any) -> bool:
    """Whether an item is in place of a conversation that was compacted."""
    return isinstance(item, dict) and item.get("type") == KIND


def in_words(item: Any) -> Any:
    """What the model reads of an item: of a compaction the summary, as a message of the user."""
    if not is_compaction(item):
        return item
    text = _INTRODUCTION + unseal(str(item["encrypted_content"]))
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def check(item: Mapping[str, Any], place: str) -> None:
    """Refuses a compaction that cannot be read.

    Args:
        item: as it was sent.
        place: where.

    Raises:
        FieldError: it is not one that this server has made.
    """
    where = f"{place}.encrypted_content"
    try:
        unseal(item["encrypted_content"])
    except KeyError:
        raise FieldError(where, f"{where} is missing.") from None
    except (ValueError, TypeError, AttributeError):
        message = f"{where} is not what /v1/responses/compact of this server has answered: send it unchanged."
        raise FieldError(where, message) from None


def seal(summary: str) -> str:
    """The content of a compaction's item. It is no secret from the client whose conversation it sums up."""
    return _PLAIN + base64.urlsafe_b64encode(summary.encode(errors="replace")).decode()


def unseal(content: str) -> str:
    """The summary.

    Raises:
        ValueError: `seal` has not made this.
    """
    if not content.startswith(_PLAIN):
        raise ValueError("of another server or version")
    try:
        return base64.b64decode(content.removeprefix(_PLAIN), altchars=b"-_", validate=True).decode()
    except binascii.Error as error:
        raise ValueError(str(error)) from None
