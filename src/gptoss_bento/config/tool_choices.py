"""Which tools the operator wants, as several settings together say: config/tool_settings.py reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import SecretStr

from gptoss_bento.tools.mcp.server import Server

Backend = Literal["exa", "you", "brave", "tavily", "searxng"]


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
    mcp_servers: tuple[Server, ...] = ()
