"""The query of a request, and the values that lists take there. Pure."""

from __future__ import annotations

from http import HTTPStatus
from typing import Literal
from urllib.parse import parse_qs

from starlette.types import Scope

from gptoss_bento.http.errors import HttpRefusalError
from gptoss_bento.strict_json import shown


def query_of(scope: Scope) -> dict[str, str]:
    """The values of a request's query; of a repeated name the last one."""
    found = parse_qs(scope["query_string"].decode("latin-1"))
    return {name: values[-1] for name, values in found.items()}


def order_in(query: dict[str, str], default: str = "desc") -> Literal["asc", "desc"]:
    """How a list is sorted.

    Raises:
        HttpRefusalError: 400, neither up nor down.
    """
    text = query.get("order", default)
    if text not in ("asc", "desc"):
        raise HttpRefusalError(HTTPStatus.BAD_REQUEST, f"order must be asc or desc, got {shown(text)}.", param="order")
    return "asc" if text == "asc" else "desc"


def number_in(query: dict[str, str], name: str, default: int, least: int, most: int) -> int:
    """A whole number of a query.

    Raises:
        HttpRefusalError: 400, it is none, or not within the bounds.
    """
    text = query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or not least <= int(text[:12]) <= most:
        message = f"{name} must be a whole number from {least} to {most}, got {shown(text)}."
        raise HttpRefusalError(HTTPStatus.BAD_REQUEST, message, param=name)
    return int(text)
