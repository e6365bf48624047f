"""Whether the tool servers that were asked for have started: vLLM goes on without a tool that could not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gptoss_bento.errors import EngineStartError

_DEMO, _DEMO_TOOL = "demo", "python"


@contextmanager
def required(asked: str | None) -> Iterator[None]:
    """In which vLLM connects to its tool servers.

    Raises:
        EngineStartError: it cannot, and TOOL_SERVER (`asked`) names any.
    """
    try:
        yield
    except Exception as error:
        if not asked:
            raise
        raise EngineStartError(f"The tool server {asked} (TOOL_SERVER) cannot be used: {_reason(error)}") from error


def check_started(server: Any, asked: str | None) -> None:
    """Refuses what vLLM only writes into its log.

    Args:
        server: vLLM's own, of the application's state.
        asked: TOOL_SERVER.

    Raises:
        EngineStartError: the demo has no Python, or two servers have one name, so that one of them is not used.
    """
    if asked == _DEMO and _DEMO_TOOL not in server.tools:
        raise EngineStartError(
            f"TOOL_SERVER=demo: the tool {_DEMO_TOOL} did not start; vLLM's log says why. It needs Docker, and the "
            "image python:3.11."
        )
    if asked and asked != _DEMO and len(server.urls) < (count := len(asked.split(","))):
        names = ", ".join(server.urls)
        raise EngineStartError(
            f"TOOL_SERVER names {count} servers, but they have one name: {names}. vLLM would drop one."
        )


def _reason(error: BaseException) -> str:
    """The first of what came together, as the client of MCP reports it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error).strip().split("\n")[0] or type(error).__name__
