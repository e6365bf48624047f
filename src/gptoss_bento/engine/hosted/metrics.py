"""Calls of tools in /metrics: how many, how long, and how they ended, by tool."""

from __future__ import annotations

from functools import cache
from typing import Any

ENDS = ("completed", "failed", "stopped", "refused")
"""`stopped`: by a bound or because its client left; `refused`: it was not made."""


@cache
def _counters() -> tuple[Any, Any]:
    from prometheus_client import Counter

    calls = Counter(
        "gptoss_bento_tool_calls", "Calls of tools that run on the server, by how they ended.", ["tool", "end"]
    )
    seconds = Counter("gptoss_bento_tool_seconds", "Seconds that calls of tools took.", ["tool"])
    return calls, seconds


def count(tool: str, end: str, seconds: float) -> None:
    """A call has ended.

    Args:
        tool: `python`, `browser` or `mcp`.
        end: one of ENDS.
        seconds: that it took.
    """
    calls, spent = _counters()
    calls.labels(tool, end).inc()
    spent.labels(tool).inc(seconds)


def show_from_the_start(tools: frozenset[str]) -> None:
    """Shows 0 for what has not been called yet."""
    calls, spent = _counters()
    for tool in tools:
        spent.labels(tool)
        for end in ENDS:
            calls.labels(tool, end)
