"""What of a server's list of tools a model gets: what is allowed, can be named, and fits into a prompt. Pure."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gptoss_bento.strict_json import dumps, encodable
from gptoss_bento.tools.mcp.results import clean
from gptoss_bento.tools.mcp.schema import cut, is_short, prompt_schema
from gptoss_bento.tools.mcp.server import Limits, McpTool, Server

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")  # SEP-986 of MCP; whatever else could be read as a part of the prompt
_HINTS = ("title", "readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")
_TITLE_CHARS = 200


class TooManyToolsError(ValueError):
    """A server offers more than a prompt can take. The text is the rest of a sentence that begins with the server."""


def offered(listed: Sequence[Any], server: Server, limits: Limits) -> list[McpTool]:
    """The tools for the model, in the server's order. Those that no call could name are left out.

    Args:
        listed: tools of MCP's.
        server: whose, and which of them are allowed.
        limits: how many, and how long.

    Raises:
        TooManyToolsError: they are too many, or too long together.
    """
    found: dict[str, McpTool] = {}
    for tool in listed:
        if not _NAME.fullmatch(tool.name) or tool.name in found:
            logger.info("a tool of the MCP server %s is left out, for its name", server.label)
            continue
        read = _tool(tool, server, limits)
        if server.allows(read):
            found[tool.name] = read
    _refuse_too_many(found.values(), limits)
    return list(found.values())


def _refuse_too_many(tools: Iterable[McpTool], limits: Limits) -> None:
    lengths = [len(tool.name) + len(tool.description) + len(dumps(tool.input_schema)) for tool in tools]
    if len(lengths) > limits.tools:
        most = f"{len(lengths)} tools, of which a response can have {limits.tools}"
    elif sum(lengths) > limits.prompt_chars:
        most = f"tools of {sum(lengths):,} characters, of which a response can have {limits.prompt_chars:,}"
    else:
        return
    raise TooManyToolsError(f"it offers {most}: name those that are needed in allowed_tools")


def _tool(tool: Any, server: Server, limits: Limits) -> McpTool:
    schema = _hidden(prompt_schema(tool.input_schema, limits.schema_chars), server)
    said = (tool.description or tool.title or "")[: 2 * limits.description_chars]
    description = clean(server.without_secrets(said))
    return McpTool(
        name=tool.name,
        description=cut(description.strip(), limits.description_chars),
        input_schema=schema,
        listed_schema=_hidden(_listed(tool.input_schema, schema, limits.schema_chars), server),
        annotations=_annotations(tool.annotations, server),
        output_schema=tool.output_schema,
    )


def _listed(schema: Mapping[str, Any], trimmed: Mapping[str, Any], most_chars: int) -> Mapping[str, Any]:
    return schema if is_short(schema, most_chars) and encodable(dumps(schema)) else trimmed


def _hidden(value: Any, server: Server) -> Any:
    """JSON without the server's secrets, in which all else stays as it is."""
    if isinstance(value, str):
        return server.without_secrets(value)
    if isinstance(value, Mapping):
        return {server.without_secrets(name): _hidden(part, server) for name, part in value.items()}
    return [_hidden(part, server) for part in value] if isinstance(value, list) else value


def _annotations(annotations: Any, server: Server) -> dict[str, Any]:
    """The hints of the protocol, without what else a server puts there."""
    known = annotations.model_dump(by_alias=True, exclude_none=True) if annotations is not None else {}
    kept = {name: _hidden(known[name], server) for name in _HINTS if name in known}
    return {name: cut(clean(value), _TITLE_CHARS) if isinstance(value, str) else value for name, value in kept.items()}
