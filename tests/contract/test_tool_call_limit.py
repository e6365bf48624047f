"""`max_tool_calls` against the conversation that vLLM has with its built-in tools."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from openai_harmony import Author, Message, Role

from gptoss_bento.engine import tool_call_limit
from gptoss_bento.engine.hosted.messages import result_message

pytestmark = [pytest.mark.contract, pytest.mark.filterwarnings("default")]


class Python:
    """A session of a tool server."""

    def __init__(self) -> None:
        self.calls = 0

    async def call_tool(self, *_: object) -> Any:
        self.calls += 1
        return SimpleNamespace(content=[SimpleNamespace(text="4")])


def conversation(limit: int | None) -> Any:
    """vLLM's own, without a parser; the model has called Python."""
    from vllm.entrypoints.openai.responses.context import HarmonyContext

    made: Any = HarmonyContext.__new__(HarmonyContext)
    made._messages = [Message.from_author_and_content(Author(role=Role.TOOL, name="python"), "of an earlier turn")]
    made.num_init_messages = 1
    made.request = SimpleNamespace(max_tool_calls=limit)
    made.available_tools, made.called_tools = ["python"], set()
    made._tool_sessions = {"python": Python()}
    return made


def calls(context: Any) -> None:
    call = Message.from_role_and_content(Role.ASSISTANT, "2 + 2").with_recipient("python").with_channel("analysis")
    context._messages.append(call)


async def rounds(context: Any, call: Callable[[Any], Awaitable[list[Any]]], needs: Callable[[Any], bool]) -> int:
    """Lets the model call its tool again and again. Returns how often it got a result, at most five times."""
    for number in range(5):
        calls(context)
        if not needs(context):
            return number
        context.append_tool_output(await call(context))
    return 5


async def test_vllm_still_calls_tools_beyond_the_limit() -> None:
    context = conversation(1)

    assert await rounds(context, type(context).call_tool, type(context).need_builtin_tool_call) == 5
    assert context._tool_sessions["python"].calls == 5


@pytest.mark.parametrize("limit", [0, 1, 3, None])
async def test_response_ends_with_a_call_after_the_note(limit: int | None) -> None:
    context = conversation(limit)
    call = tool_call_limit.limited(type(context).call_tool, note=result_message)
    needs: Callable[[Any], bool] = tool_call_limit.ending(type(context).need_builtin_tool_call)
    results = await rounds(context, partial(call), needs)

    assert context._tool_sessions["python"].calls == (5 if limit is None else limit)
    assert results == (5 if limit is None else limit + 1)
    if limit is not None:
        note = context.messages[-2]
        assert note.author.role == "tool"
        assert note.content[0].text.startswith(f"The limit of {limit} tool calls is reached")
