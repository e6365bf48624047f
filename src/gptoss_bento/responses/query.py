"""What the query of a request says: pages of lists, and places in streams."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Literal
from urllib.parse import parse_qs

from starlette.requests import Request

from gptoss_bento.http.errors import HttpRefusalError
from gptoss_bento.strict_json import shown

DEFAULT_PAGE, LARGEST_PAGE = 20, 100
"""Items of a list, as OpenAI's."""

Query = Mapping[str, str]


def query_of(request: Request) -> dict[str, str]:
    """Its parameters; of several values of one the last counts."""
    found = parse_qs(request.scope["query_string"].decode("latin-1"))
    return {name: values[-1] for name, values in found.items()}


def order_in(query: Query) -> Literal["asc", "desc"]:
    """Its `order`, desc without one.

    Raises:
        HttpRefusalError: it is neither.
    """
    text = query.get("order", "desc")
    if text not in ("asc", "desc"):
        raise HttpRefusalError(HTTPStatus.BAD_REQUEST, f"order must be asc or desc, got {shown(text)}.", param="order")
    return "asc" if text == "asc" else "desc"


def number_in(query: Query, name: str, default: int, least: int, most: int) -> int:
    """A parameter that is a whole number.

    Raises:
        HttpRefusalError: it is none, or beyond its bounds.
    """
    text = query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or not least <= int(text[:12]) <= most:
        message = f"{name} must be a whole number from {least} to {most}, got {shown(text)}."
        raise HttpRefusalError(HTTPStatus.BAD_REQUEST, message, param=name)
    return int(text)
