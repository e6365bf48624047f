"""Calls within their bounds, without vLLM."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import REGISTRY

from gptoss_bento.engine.fake_tools import FakeBrowser, FakeMcp, FakeOutcome, FakePython, FakeServer, FakeTool
from gptoss_bento.engine.hosted.calls import McpCall, PythonCall
from gptoss_bento.engine.hosted.messages import call_message
from gptoss_bento.engine.hosted.turn import Asked, Listed, ToolTurn
from gptoss_bento.tools.interfaces import HostedTools, ToolFailedError


def turn_of(tools: HostedTools, names: str = "python browser", **more: Any) -> ToolTurn:
    listed = Listed(FakeServer("weather"), {"now": FakeTool()}, {})
    browser: Any = tools.browser
    asked = Asked(frozenset(names.split()), "cntr_1", browser, servers={"weather": listed} if tools.mcp else {})
    return ToolTurn(tools, asked, **more)


def message(recipient: str, text: str = "{}") -> Any:
    return call_message(recipient, text, "commentary", "json")


async def text_of(turn: ToolTurn, call: Any) -> str:
    (result,) = await turn.results(call)
    assert (result.author.name, result.recipient, result.channel) == (call.recipient, "assistant", call.channel)
    return str(result.content[0].text)


def counted(tool: str, end: str) -> float:
    return REGISTRY.get_sample_value("gptoss_bento_tool_calls_total", {"tool": tool, "end": end}) or 0.0


@pytest.mark.parametrize(
    ("recipient", "is_ours"),
    [
        ("python", True),
        ("browser.search", True),
        ("weather.now", True),
        ("weather.other", True),
        ("weathers.now", False),
        ("functions.now", False),
        ("assistant", False),
        (None, False),
    ],
)
def test_recipients_of_these_tools_are_known(recipient: str | None, is_ours: bool) -> None:
    turn = turn_of(HostedTools(python=FakePython(), browser=FakeBrowser(), mcp=FakeMcp()))

    assert turn.handles(recipient) is is_ours


def test_server_whose_label_begins_as_python_is_not_run_as_code() -> None:
    listed = Listed(FakeServer("python_docs"), {"now": FakeTool()}, {})
    tools = HostedTools(python=FakePython(), mcp=FakeMcp())
    turn = ToolTurn(tools, Asked(frozenset({"python"}), "cntr_1", servers={"python_docs": listed}))

    call = turn.new_call("python_docs.now")
    assert isinstance(call, McpCall)
    assert (call.label, call.name) == ("python_docs", "now")
    assert isinstance(turn.new_call("python"), PythonCall)


async def test_code_runs_for_the_owner_of_the_request() -> None:
    python = FakePython()
    turn = ToolTurn(HostedTools(python=python), Asked(frozenset({"python"}), "cntr_1", owner="alice"))
    await turn.results(message("python", "1"))

    assert (python.runs, python.owners) == ([("cntr_1", "1")], ["alice"])


async def test_tool_that_was_not_asked_for_is_not_called() -> None:
    turn = turn_of(HostedTools(python=FakePython()), names="browser")

    assert not turn.handles("python")


async def test_error_of_a_tool_is_text_and_is_counted() -> None:
    async def fail(_: str) -> FakeOutcome:
        raise RuntimeError("of the operator's machine")

    before = counted("python", "failed")
    turn = turn_of(HostedTools(python=FakePython(fail)))

    assert await text_of(turn, message("python")) == "Error: the tool failed. Do not call it again in the same way."
    assert counted("python", "failed") == before + 1


async def test_server_that_cannot_be_used_is_text() -> None:
    turn = turn_of(HostedTools(mcp=FakeMcp(fails=ToolFailedError("weather does not answer."))))

    assert await text_of(turn, message("weather.now")) == "Error: weather does not answer."


async def test_connection_is_one_for_all_calls_of_a_response() -> None:
    mcp = FakeMcp()
    async with turn_of(HostedTools(mcp=mcp)) as turn:
        for _ in range(3):
            assert await text_of(turn, message("weather.now", '{"city": "Rome"}')) == "sunny"
        assert mcp.open == 1

    assert mcp.open == 0


async def test_call_that_takes_too_long_is_stopped() -> None:
    async def hang() -> FakeOutcome:
        await asyncio.Event().wait()
        raise AssertionError

    turn = turn_of(HostedTools(mcp=FakeMcp(answer=hang), call_timeout_s=0.01))
    call = message("weather.now")

    assert await text_of(turn, call) == "Error: the call was stopped after 0.01 s."
    made = turn.call_of(call)
    assert isinstance(made, McpCall)
    assert made.item["status"] == "failed"


async def test_time_of_all_calls_is_bounded_and_then_the_response_ends() -> None:
    now = iter(range(0, 1000, 10))
    turn = turn_of(HostedTools(python=FakePython(), turn_timeout_s=10), clock=lambda: float(next(now)))
    first, second, third = (message("python") for _ in range(3))

    assert await text_of(turn, first) == "4"
    assert turn.may_call(second, "stop")
    assert (await text_of(turn, second)).startswith("The 10 s for tools in this response are over")
    assert not turn.may_call(third, "stop")


def test_call_that_was_cut_is_not_made() -> None:
    assert not turn_of(HostedTools(python=FakePython())).may_call(message("python"), "length")


async def test_arguments_that_the_browser_has_not_are_left_out() -> None:
    browser = FakeBrowser()
    turn = turn_of(HostedTools(browser=browser))

    await text_of(turn, message("browser.search", '{"query": "rain", "recency_days": 3, "source": null}'))

    assert browser.calls == [("search", {"query": "rain", "topn": 10, "source": None})]


def test_message_of_the_user_is_no_call() -> None:
    turn = turn_of(HostedTools(python=FakePython()))

    assert turn.call_of(SimpleNamespace(author=SimpleNamespace(role="user"), recipient="python")) is None
