"""Asks a tool server what it is and offers, with the library and in the way that vLLM does when it starts.

Source: vLLM 0.32, entrypoints/mcp/tool_server.py, `list_server_and_tools`.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Offer:
    """What a tool server calls itself, and the names of its tools."""

    name: str
    tools: tuple[str, ...]


def load_client() -> None:
    """Imports the client, which takes about as long as a whole check may."""
    with suppress(ImportError):  # `offer` reports it
        import mcp.client.sse  # noqa: F401


def offer(server: str, timeout_s: float) -> Offer:
    """Connects to a server, and leaves it again.

    Args:
        server: host:port.
        timeout_s: seconds for all of it.

    Raises:
        ImportError: the package mcp is not installed; then vLLM cannot connect either.
        TimeoutError: no complete answer in time.
        Exception: whatever else the client reports of a server that does not speak MCP over SSE.
    """
    return asyncio.run(_ask(f"http://{server}/sse", timeout_s))


async def _ask(url: str, timeout_s: float) -> Offer:
    from mcp import ClientSession
    from mcp.client.sse import sse_client

    async with asyncio.timeout(timeout_s), sse_client(url) as streams, ClientSession(*streams) as session:
        about = await session.initialize()
        listed = await session.list_tools()
    return Offer(about.server_info.name, tuple(tool.name for tool in listed.tools))
