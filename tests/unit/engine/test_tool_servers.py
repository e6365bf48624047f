from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError

from gptoss_bento.engine.tool_servers import check_offers, explained, required
from gptoss_bento.errors import EngineStartError


async def test_application_without_tool_servers_asks_none() -> None:
    async def ask(url: str) -> tuple[Any, Any]:
        raise AssertionError(url)

    await check_offers(None, ask)


async def test_server_that_cannot_be_used_is_named_among_several() -> None:
    async def ask(url: str) -> tuple[Any, Any]:
        if url == "http://b:2/sse":
            raise ConnectionError("no way there")
        return SimpleNamespace(server_info=SimpleNamespace(name="python")), SimpleNamespace(tools=[])

    with pytest.raises(EngineStartError, match=r"The tool server b:2 \(TOOL_SERVER\) cannot be used: no way there"):
        await check_offers("a:1,b:2", ask)


def test_server_that_does_not_answer_is_named() -> None:
    group = ExceptionGroup("unhandled errors in a TaskGroup", [ConnectionError("All connection attempts failed")])

    answer = r"tool server a:1 \(TOOL_SERVER\) cannot be used: All connection attempts"
    with pytest.raises(EngineStartError, match=answer), required("a:1"):
        raise group


def test_failures_of_an_application_without_tools_stay_as_they_are() -> None:
    with pytest.raises(ZeroDivisionError), required(None):
        raise ZeroDivisionError


async def test_session_passes_on_what_it_was_asked_for() -> None:
    @asynccontextmanager
    async def new_session(*args: object) -> AsyncIterator[object]:
        yield args

    async with explained(new_session, RuntimeError)("python", "1", {"a": "b"}) as session:
        assert session == ("python", "1", {"a": "b"})


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (json.JSONDecodeError("Expecting value", "print(", 0), "The model's call of the tool server python is no JSON"),
        (MCPError(-32602, "Unknown tool"), "The tool server python refused the call"),
        (MCPError(-32000, "Connection closed"), "The tool server python does not answer"),
    ],
)
async def test_error_that_is_not_the_clients_is_unavailable_and_says_whose_it_is(error: Exception, text: str) -> None:
    @asynccontextmanager
    async def new_session(*_: object) -> AsyncIterator[None]:
        yield

    with pytest.raises(RuntimeError, match=text):
        async with explained(new_session, RuntimeError)("python"):
            raise error


async def test_timeouts_within_a_session_are_not_the_tool_servers() -> None:
    @asynccontextmanager
    async def new_session(*_: object) -> AsyncIterator[None]:
        yield

    with pytest.raises(TimeoutError):
        async with explained(new_session, RuntimeError)("python"):
            raise TimeoutError
