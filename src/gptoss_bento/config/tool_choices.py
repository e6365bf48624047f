"""Which tools the operator wants, as several settings together say: config/tool_settings.py reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import SecretStr

Approval = Literal["always", "never"]
Backend = Literal["exa", "you", "brave", "tavily", "searxng"]


@dataclass(frozen=True)
class McpServer:
    """One MCP server of the operator, with its secrets in place.

    Attributes:
        allowed_tools: None: all of them.
        require_approval: None: as the request says. `always` holds for all requests.
    """

    label: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    allowed_tools: tuple[str, ...] | None = None
    require_approval: Approval | None = None
    description: str | None = None


@dataclass(frozen=True)
class ToolChoices:
    """What was asked for. What this machine can do is no part of it.

    Attributes:
        python: on, off or auto.
        python_origin: the variable that said so, or default.
        search: who searches; None for no search.
        search_key: its key; None where it needs none.
        opens: whether pages may be opened.
    """

    python: Literal["on", "off", "auto"] = "off"
    python_origin: str = "default"
    search: Backend | None = None
    search_origin: str = "default"
    search_key: SecretStr | None = field(default=None, repr=False)
    opens: bool = False
    opens_origin: str = "default"
    mcp_servers: tuple[McpServer, ...] = ()
