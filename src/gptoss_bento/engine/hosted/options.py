"""What a request may say of Python and of the browser, where this process runs them. Pure.

Source: the tools `code_interpreter`, `web_search` and `web_search_preview` of OpenAI's Responses API.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from gptoss_bento.strict_json import shown

RESERVED = frozenset(
    {
        "functions",
        "python",
        "browser",
        "container",
        "assistant",
        "user",
        "system",
        "developer",
        "tool",
        "multi_tool_use",
    }
)
"""Namespaces and roles of Harmony's, which no label of an MCP server may be."""

RESULTS = {"low": 5, "medium": 10, "high": 20}
"""How many results a search shows for each `search_context_size`, where the model asks for no number."""

_CONTAINER = re.compile(r"cntr_[0-9A-Za-z]{16,64}")
_LABEL = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_NO_DOMAIN = re.compile(r"[\s/:@?#,]")  # a list of addresses would allow, or block, nothing
_PLACE = ("city", "region", "country", "timezone")
_DOMAINS = ("allowed_domains", "blocked_domains")

Problem = tuple[str, str]
"""Which field asks for what cannot be done, and the message."""


def as_fields(value: Any) -> Mapping[str, Any]:
    """A tool, or a part of one, as its fields."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    return value if isinstance(value, Mapping) else vars(value) if value is not None else {}


def python_problem(place: str, tool: Any) -> Problem | None:
    """What of a `code_interpreter` cannot be done."""
    container = as_fields(tool).get("container")
    where = f"{place}.container"
    if isinstance(container, str):
        if is_container(container):
            return None
        return (
            where,
            f'{where} {shown(container)} is no id of a container: use that of an earlier call, or {{"type": "auto"}}.',
        )
    asked = as_fields(container)
    if asked.get("file_ids"):
        return f"{where}.file_ids", f"{where}.file_ids: containers of this service have no files: leave it out."
    if asked.get("memory_limit") not in (None, "1g"):
        limit = f"{where}.memory_limit"
        return (
            limit,
            f"{limit} {shown(asked['memory_limit'])}: the operator sets it (PYTHON_TOOL_MEMORY_MB): leave it out.",
        )
    policy = as_fields(asked.get("network_policy")).get("type")
    if policy not in (None, "disabled"):
        network = f"{where}.network_policy"
        return network, f'{network}: containers of this service have no network: {{"type": "disabled"}}.'
    return None


def is_container(name: Any) -> bool:
    """Whether it may be the id of a container."""
    return isinstance(name, str) and _CONTAINER.fullmatch(name) is not None


def container_of(tool: Any) -> str | None:
    """The id that a `code_interpreter` names; None: any will do."""
    container = as_fields(tool).get("container")
    return container if isinstance(container, str) else None


def browser_problem(place: str, tool: Any) -> Problem | None:
    """What of a `web_search` cannot be done."""
    asked = as_fields(tool)
    types = asked.get("search_content_types")
    if types and list(types) != ["text"]:
        where = f"{place}.search_content_types"
        return where, f'{where} must be ["text"], got {shown(types)}: GPT-OSS reads text.'
    filters = asked.get("filters")
    if filters is None:
        return None
    where = f"{place}.filters"
    if not isinstance(filters, Mapping):
        return where, f"{where} must be an object with {' or '.join(_DOMAINS)}, got {shown(filters)}."
    for name, value in filters.items():
        if name not in _DOMAINS:
            return f"{where}.{name}", f"{where}.{name} is none of {', '.join(_DOMAINS)}."
        if value is not None and not _is_list_of_texts(value):
            return f"{where}.{name}", f"{where}.{name} must be a list of domains, got {shown(value)}."
        if wrong := [each for each in value or () if _NO_DOMAIN.search(each.strip())]:
            return f"{where}.{name}", f"{where}.{name} must have domains such as example.org, got {shown(wrong[0])}."
    return None


def domains_of(tool: Any) -> dict[str, Sequence[str]]:
    """The domains that a `web_search` allows and blocks."""
    filters = as_fields(tool).get("filters") or {}
    return {name: tuple(filters.get(name) or ()) for name in _DOMAINS}


def results_of(tool: Any) -> int:
    """How many results a search shows."""
    return RESULTS.get(str(as_fields(tool).get("search_context_size")), RESULTS["medium"])


def location_of(tool: Any) -> str | None:
    """Where the user is, as the model reads it; None: not said."""
    place = as_fields(as_fields(tool).get("user_location"))
    named = [str(place[name]) for name in _PLACE if place.get(name)]
    return f"The user is near {', '.join(named)}." if named else None


def label_problem(place: str, label: str) -> Problem | None:
    """Why a label cannot be a namespace of the model's."""
    where = f"{place}.server_label"
    if label.lower() in RESERVED:
        return where, f"{where} {shown(label)} is a name of the model's own: use another one."
    if not _LABEL.fullmatch(label):
        return where, f"{where} must be 1 to 64 letters, digits, _ or -, a letter first, got {shown(label)}."
    return None


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, str) and each for each in value)
