"""The field `conversation` of a request that makes a response. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptoss_bento.http.errors import FieldError
from gptoss_bento.strict_json import shown

_OTHER_HISTORIES = ("previous_response_id", "previous_input_messages")


def conversation_of(asked: Mapping[str, Any]) -> str | None:
    """The id of the conversation that a request names.

    Raises:
        FieldError: it names none by an id, or another history beside it.
    """
    given = asked.get("conversation")
    if given is None:
        return None
    name = given.get("id") if isinstance(given, dict) else given
    if not isinstance(name, str) or not name:
        form = 'the id of a conversation or {"id": "conv_…"}'
        raise FieldError("conversation", f"conversation must be {form}, got {shown(given)}.")
    for other in _OTHER_HISTORIES:
        if asked.get(other):
            raise FieldError("conversation", f"conversation and {other}: give one, each brings the items before these.")
    return name
