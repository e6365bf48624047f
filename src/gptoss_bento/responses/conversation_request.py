"""What the requests of /v1/conversations ask for. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from gptoss_bento.http.errors import FieldError, HttpRefusalError
from gptoss_bento.strict_json import shown, shown_name

MOST_ITEMS_A_REQUEST = 20
"""OpenAI's limit."""

_MOST_PAIRS, _LONGEST_NAME, _LONGEST_VALUE = 16, 64, 512
_LONGEST_ID = 512
_INCLUDABLE = frozenset(
    {
        "file_search_call.results",
        "web_search_call.results",
        "web_search_call.action.sources",
        "message.input_image.image_url",
        "computer_call_output.output.image_url",
        "code_interpreter_call.outputs",
        "reasoning.encrypted_content",
        "message.output_text.logprobs",
    }
)


def refuse_unknown(asked: Mapping[str, Any], known: Collection[str], route: str) -> None:
    """As OpenAI does: a name with a mistake in it would have no effect.

    Raises:
        FieldError: there is a field of another name.
    """
    for name in asked:
        if name not in known:
            printed = shown_name(name)
            fields = " and ".join(sorted(known))
            raise FieldError(printed, f"{printed} is no field of {route}, which takes {fields}.")


def metadata_of(asked: Mapping[str, Any]) -> dict[str, str]:
    """The pairs of `metadata`; none without it.

    Raises:
        FieldError: they are not what OpenAI's API takes.
    """
    given = asked.get("metadata")
    if given is None:
        return {}
    if not isinstance(given, dict) or len(given) > _MOST_PAIRS:
        found = f"{len(given)} pairs" if isinstance(given, dict) else shown(given)
        raise FieldError("metadata", f"metadata must be an object of {_MOST_PAIRS} pairs at most, got {found}.")
    for name, value in given.items():
        if len(name) > _LONGEST_NAME:
            raise FieldError("metadata", f"A name in metadata has {_LONGEST_NAME} characters at most: {shown(name)}.")
        if not isinstance(value, str) or len(value) > _LONGEST_VALUE:
            where = f"metadata.{shown_name(name)}"
            raise FieldError(where, f"{where} must be a text of {_LONGEST_VALUE} characters at most.")
    return given


def items_of(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The list `items`, as the client wrote it.

    Raises:
        FieldError: it is no list of at most 20 objects, or an id is none.
    """
    given = asked.get("items")
    if not isinstance(given, list) or len(given) > MOST_ITEMS_A_REQUEST:
        found = f"{len(given)} items" if isinstance(given, list) else shown(given)
        raise FieldError("items", f"items must be a list of {MOST_ITEMS_A_REQUEST} items at most, got {found}.")
    for number, item in enumerate(given):
        if not isinstance(item, dict):
            raise FieldError(f"items[{number}]", f"items[{number}] must be an object, got {shown(item)}.")
        refuse_id(item.get("id"), f"items[{number}].id")
    return given


def refuse_id(value: Any, where: str) -> None:
    """Holds the id that a client gives an item to what a path and an index of the database can have.

    Args:
        value: the id; None: the item gets one.
        where: its place in the request.

    Raises:
        FieldError: it is none.
    """
    if value is not None and not (isinstance(value, str) and 0 < len(value) <= _LONGEST_ID and _is_in_paths(value)):
        message = f"{where} must be a text of 1 to {_LONGEST_ID} printable characters without a slash"
        raise FieldError(where, f"{message}, got {shown(value)}.")


def _is_in_paths(value: str) -> bool:
    return value.isprintable() and "/" not in value


def refuse_repeats(items: Sequence[Mapping[str, Any]]) -> None:
    """Refuses two items of one id.

    Raises:
        FieldError: it names the second.
    """
    seen: set[str] = set()
    for number, item in enumerate(items):
        if item["id"] in seen:
            raise taken_id(items, item["id"], number)
        seen.add(item["id"])


def taken_id(items: Sequence[Mapping[str, Any]], item_id: str, number: int | None = None) -> FieldError:
    """The refusal of an id that another item of the conversation has."""
    place = number if number is not None else next(i for i, item in enumerate(items) if item["id"] == item_id)
    where = f"items[{place}].id"
    return FieldError(where, f"{where} is the id of another item of this conversation: {shown(item_id)}.")


def refuse_include(given: Sequence[str]) -> None:
    """Items are always returned with all that is stored of them, so what OpenAI knows has no effect here.

    Raises:
        FieldError: OpenAI does not know it.
    """
    for value in given:
        if value not in _INCLUDABLE:
            raise FieldError("include", f"include has {shown(value)}; it may have {', '.join(sorted(_INCLUDABLE))}.")


@contextmanager
def naming_items() -> Iterator[None]:
    """Refusals that speak of `input` speak of `items` instead: so the field is called here."""
    try:
        yield
    except HttpRefusalError as error:
        param = error.param and _renamed(error.param)
        raise HttpRefusalError(error.status, _renamed(str(error)), error.headers, param, error.code) from None


def _renamed(text: str) -> str:
    return re.sub(r"\binput\b", "items", text)
