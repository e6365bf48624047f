"""`max_tool_calls` of /v1/responses, which vLLM 0.32 repeats in its answer and does not read.

Wrappers of vLLM's methods; replacements.py applies them. Once the limit is reached a call gets a note for a result, so
that the model can still answer; a response whose model calls a tool again all the same ends there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

Call = Callable[[Any], Awaitable[list[Any]]]


def limited(call_tool: Call, note: Callable[[Any, str], Any]) -> Call:
    """Calls no tool beyond the limit of the request.

    Args:
        call_tool: vLLM's method of a conversation whose last message is the call.
        note: makes the message of a tool that answers this message with this text.
    """

    async def called(context: Any) -> list[Any]:
        limit = _limit(context)
        if limit is None or _results(context) < limit:
            return await call_tool(context)
        text = f"The limit of {limit} tool calls is reached, and this call was not made. Answer without tools."
        return [note(context.messages[-1], text)]

    return called


def ending(needs_call: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Ends a response whose model calls a tool although it has read that the limit is reached."""

    def needs(context: Any) -> bool:
        limit = _limit(context)
        return needs_call(context) and (limit is None or _results(context) <= limit)

    return needs


def _limit(context: Any) -> int | None:
    limit: int | None = getattr(context.request, "max_tool_calls", None)
    return limit


def _results(context: Any) -> int:
    """How many calls of built-in tools this response has results of, notes among them."""
    return sum(message.author.role == "tool" for message in context.messages[context.num_init_messages :])
