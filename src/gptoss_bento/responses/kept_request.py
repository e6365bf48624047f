"""A request in the background as it is kept while its response has not ended, so that any worker generates it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import Any

from gptoss_bento.responses.objects import has_secrets
from gptoss_bento.responses.request import CreateRequest
from gptoss_bento.responses.tool_kinds import CalledTool, ToolKinds
from gptoss_bento.strict_json import dumps, loads_stored


def kept_request(request: CreateRequest, body: bytes) -> str | None:
    """The text that is kept. None: it has secrets, which are in no database.

    Args:
        request: without the headers that it came with.
        body: what vLLM gets for it, with its whole history; its reasoning encrypted, if its client sent some so.
    """
    if _has_secrets(request.asked):
        return None
    made = {name: _without_input(getattr(request, name)) for name in _names()}
    called = {name: asdict(tool) for name, tool in request.kinds.called.items()}
    return f'{{"request":{dumps(made)},"called":{dumps(called)},"body":{body.decode()}}}'


def read_kept(text: str) -> tuple[CreateRequest, bytes]:
    """The request, without its input, and what vLLM gets for it.

    What encrypts its reasoning is not kept, but whether it wants that.

    Raises:
        TypeError: another version has kept it, with other fields.
    """
    kept = loads_stored(text)
    kinds = ToolKinds(called={name: CalledTool(**tool) for name, tool in kept.get("called", {}).items()})
    return CreateRequest(**kept["request"], kinds=kinds), dumps(kept["body"]).encode()


def with_items(body: bytes, changed: Callable[[Any], Any]) -> bytes:
    """A body for vLLM with each item of its input changed; the very same if its input is a text."""
    fields = loads_stored(body.decode())
    if not isinstance(items := fields.get("input"), list):
        return body
    return dumps({**fields, "input": [changed(item) for item in items]}).encode()


def _names() -> list[str]:
    """The fields that are JSON."""
    return [field.name for field in fields(CreateRequest) if field.name not in ("kinds", "encrypted")]


def _without_input(value: Any) -> Any:
    """The input is in the body."""
    return {name: each for name, each in value.items() if name != "input"} if isinstance(value, Mapping) else value


def _has_secrets(asked: Mapping[str, Any]) -> bool:
    tools = asked.get("tools")
    return isinstance(tools, list) and any(has_secrets(tool) for tool in tools if isinstance(tool, dict))
