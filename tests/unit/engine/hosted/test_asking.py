"""From a request to its tools, without vLLM."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gptoss_bento.engine.fake_tools import FakeMcp, FakePython
from gptoss_bento.engine.hosted.asking import MOST_SERVERS, prepare, turn_of
from gptoss_bento.engine.hosted.server import HostedServer
from gptoss_bento.engine.hosted.turn import ToolTurn
from gptoss_bento.engine.owner import of_owner
from gptoss_bento.tools.interfaces import HostedTools, ToolRefusedError


def server_tool(label: str) -> Any:
    fields = {"type": "mcp", "server_label": label, "server_url": "https://example.com/mcp"}
    return SimpleNamespace(**fields, model_dump=lambda **_: fields)


def request(*tools: Any) -> Any:
    return SimpleNamespace(tools=list(tools), input="x", tool_choice="auto", max_tool_calls=None)


async def prepared(asked: Any, tools: HostedTools) -> ToolTurn:
    await prepare(asked, HostedServer(tools))
    turn = turn_of(asked)
    assert turn is not None
    return turn


async def test_servers_of_a_request_are_bounded() -> None:
    labels = [f"label{number}" for number in range(MOST_SERVERS + 1)]
    tools = HostedTools(mcp=FakeMcp())
    assert len((await prepared(request(*map(server_tool, labels[:-1])), tools)).servers) == MOST_SERVERS

    with pytest.raises(ToolRefusedError, match="a request may have 16 MCP servers") as refused:
        await prepared(request(*map(server_tool, labels)), tools)
    assert refused.value.field == "tools[16]"


async def test_container_is_of_the_owner_of_the_request() -> None:
    python = FakePython()
    with of_owner("alice"):
        turn = await prepared(request(SimpleNamespace(type="code_interpreter", container=None)), HostedTools(python))
    call = turn.new_call("python")
    await turn.results(SimpleNamespace(recipient="python", channel="analysis", content=[], author=_ASSISTANT))

    assert call.item["type"] == "code_interpreter_call"
    assert python.owners == ["alice"]


_ASSISTANT = SimpleNamespace(role="assistant")
