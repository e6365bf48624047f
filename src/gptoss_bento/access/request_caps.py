"""Applies a key's limits to one request: refused if it asks for more, completed if it asks for nothing. Pure.

Field names and defaults are those of vLLM 0.32's routes; Harmony knows three efforts and takes medium by default.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from gptoss_bento.config.api_keys import KeyLimits
from gptoss_bento.http.errors import HttpRefusalError
from gptoss_bento.http.paths import CHAT, COMPACT, COMPLETIONS, MESSAGES, RESPONSES
from gptoss_bento.strict_json import shown

GENERATING = frozenset({CHAT, COMPLETIONS, RESPONSES, COMPACT, MESSAGES})
"""The routes that make the engine generate."""

_EFFORTS = ("low", "medium", "high")
_DEFAULT_EFFORT = "medium"
_DEFAULT_COMPLETION = 16  # vLLM's max_tokens of /v1/completions; elsewhere it is all that the context holds

_TOKEN_FIELDS = {
    CHAT: ("max_completion_tokens", "max_tokens"),
    COMPLETIONS: ("max_tokens",),
    RESPONSES: ("max_output_tokens",),
    MESSAGES: ("max_tokens",),
}
_EFFORT_FIELDS: dict[str, tuple[str, ...]] = {
    CHAT: ("reasoning_effort",),
    RESPONSES: ("reasoning", "effort"),
    COMPACT: ("reasoning", "effort"),
    MESSAGES: ("output_config", "effort"),
}


class CapError(HttpRefusalError):
    """400: the request asks for more than it may ever have."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(HTTPStatus.BAD_REQUEST, message, param=param)


def caps_need_body(limits: KeyLimits) -> bool:
    """Whether requests of such a key must be parsed."""
    return bool(limits.max_tokens or limits.reasoning_effort)


def capped(path: str, body: Mapping[str, Any], limits: KeyLimits) -> dict[str, Any]:
    """The body as the engine gets it.

    Args:
        path: the engine's route, without prefix.
        body: the request, as parsed JSON.
        limits: those of its key.

    Raises:
        CapError: it asks for more than it may.
    """
    within = dict(body)
    if limits.max_tokens and path in _TOKEN_FIELDS:
        _cap_tokens(path, within, limits.max_tokens)
    if limits.reasoning_effort and path in _EFFORT_FIELDS:
        _cap_effort(within, _EFFORT_FIELDS[path], limits.reasoning_effort)
    return within


def _cap_tokens(path: str, body: dict[str, Any], most: int) -> None:
    names = _TOKEN_FIELDS[path]
    given = {name: body[name] for name in names if body.get(name) is not None}
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int) or value > most:
            raise CapError(name, f"{name} must be a whole number of at most {most} with this key, got {shown(value)}.")
    if not given:
        is_unset = path == COMPLETIONS and names[0] not in body
        body[names[0]] = min(most, _DEFAULT_COMPLETION) if is_unset else most


def _cap_effort(body: dict[str, Any], fields: tuple[str, ...], most: str) -> None:
    *outer, last = fields
    holder = body
    if outer:
        inside = body.get(outer[0])
        if inside is not None and not isinstance(inside, dict):
            return  # the engine refuses it
        holder = body[outer[0]] = dict(inside or {})
    effort = holder.get(last)
    if effort is None:
        if _rank(most) < _rank(_DEFAULT_EFFORT):
            holder[last] = most
        elif outer and not holder:
            del body[outer[0]]  # as it was
    elif effort in _EFFORTS and _rank(effort) > _rank(most):
        name = ".".join(fields)
        raise CapError(name, f"{name} must be at most {most} with this key, got {effort!r}.")


def _rank(effort: str) -> int:
    return _EFFORTS.index(effort)
