"""Sessions with real servers, good and bad ones."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gptoss_bento.tools.mcp.failures import McpError
from gptoss_bento.tools.mcp.server import Limits, Server, ToolFilter, Transport
from gptoss_bento.tools.mcp.servers import McpResult, McpServers, McpSession
from tests.fake_mcp_servers import ABOUT, HTTP, HTTP_JSON, INJECTION, SSE, TOOLS, FakeServers
from tests.waiting import HANG_S, until

PATIENT = Limits(open_s=HANG_S, list_s=HANG_S, call_s=HANG_S)
ENDPOINTS = pytest.mark.parametrize("endpoint", [HTTP, HTTP_JSON, SSE])
TOKEN = "Bearer a-token-of-the-operator"


def server(fakes: FakeServers, path: str, **others: object) -> Server:
    return replace(Server("good", fakes.url(path)), **others)  # type: ignore[arg-type]


def session(fakes: FakeServers, path: str, limits: Limits = PATIENT) -> McpSession:
    return McpServers(limits=limits, allow_private=True).session(server(fakes, path))


async def called(fakes: FakeServers, path: str, name: str, limits: Limits = PATIENT, **arguments: object) -> McpResult:
    async with session(fakes, path, limits) as opened:
        return await opened.call(name, arguments)


@ENDPOINTS
async def test_tools_of_all_pages_are_listed_with_what_the_server_says_of_itself(
    fakes: FakeServers, endpoint: str
) -> None:
    async with session(fakes, endpoint) as opened:
        tools = await opened.tools()

    assert [tool.name for tool in tools] == list(TOOLS)
    assert tools[0].description == "The tool add."
    assert tools[0].is_read_only
    assert not tools[1].is_read_only
    assert tools[0].input_schema["properties"]["a"] == {"type": "integer"}
    assert opened.about == ABOUT


@ENDPOINTS
async def test_call_returns_the_text_of_the_result(fakes: FakeServers, endpoint: str) -> None:
    assert await called(fakes, endpoint, "add", a=40, b=2) == McpResult("42")


@ENDPOINTS
async def test_calls_run_simultaneously_in_one_session(fakes: FakeServers, endpoint: str) -> None:
    async with session(fakes, endpoint) as opened:
        results = await asyncio.gather(*(opened.call("add", {"a": number}) for number in range(20)))

    assert [result.text for result in results] == [str(number) for number in range(20)]


@pytest.mark.parametrize("transport", [Transport.HTTP, Transport.SSE])
async def test_transport_that_is_set_explicitly_is_the_only_one_that_is_tried(
    fakes: FakeServers, transport: Transport
) -> None:
    servers = McpServers(limits=PATIENT, allow_private=True)
    other = {Transport.HTTP: SSE, Transport.SSE: HTTP}[transport]

    with pytest.raises(McpError):
        await servers.tools(server(fakes, other, transport=transport))


async def test_error_of_a_tool_is_the_text_of_a_result_that_failed(fakes: FakeServers) -> None:
    result = await called(fakes, HTTP, "fail")

    assert result.failed
    assert result.text == "The MCP server good failed: it answered with an error: the disk is on fire."
    assert result.error == {"type": "mcp_protocol_error", "code": 0, "message": result.text}


@ENDPOINTS
async def test_result_that_breaks_its_schema_is_an_error_and_no_exception(fakes: FakeServers, endpoint: str) -> None:
    async with session(fakes, endpoint) as opened:
        await opened.tools()
        result = await opened.call("wrong_schema", {})

    assert result.failed
    assert result.text.startswith("The server does not keep to its schema: 'count' of the result is not of the type")
    assert result.error is not None
    assert result.error["type"] == "mcp_tool_execution_error"


async def test_result_with_a_prompt_injection_is_bounded_text_like_any_other(fakes: FakeServers) -> None:
    limits = replace(PATIENT, result_chars=30)

    assert (await called(fakes, HTTP, "inject")).text == INJECTION
    assert (await called(fakes, HTTP, "inject", limits)).text == (
        f"{INJECTION[:30]}\n[{len(INJECTION) - 30} more characters were left out]"
    )


@ENDPOINTS
async def test_result_beyond_the_bound_of_characters_is_cut(fakes: FakeServers, endpoint: str) -> None:
    result = await called(fakes, endpoint, "large", bytes=500_000)

    assert not result.failed
    assert result.text.startswith("xxx")
    assert result.text.endswith(f"[{500_000 - PATIENT.result_chars} more characters were left out]")


@ENDPOINTS
async def test_result_of_5_mb_is_an_error_after_which_the_next_call_works(fakes: FakeServers, endpoint: str) -> None:
    async with session(fakes, endpoint) as opened:
        large = await opened.call("large", {})
        after = await opened.call("add", {"a": 1})

    assert large.failed
    assert any(words in large.text for words in ("it sent too much as one event", "has more than 1,048,576 bytes"))
    assert after == McpResult("1")


@ENDPOINTS
async def test_connection_that_breaks_in_a_call_is_an_error_after_which_the_next_call_works(
    fakes: FakeServers, endpoint: str
) -> None:
    async with session(fakes, endpoint) as opened:
        broken = await opened.call("leave", {})
        after = await opened.call("add", {"a": 1})

    assert broken == McpResult(
        "The MCP server good failed: it closed the connection.",
        failed=True,
        error={"type": "mcp_protocol_error", "code": -32000, "message": broken.text},
    )
    assert after == McpResult("1")


async def test_session_that_the_server_has_lost_is_opened_again_for_the_same_call(fakes: FakeServers) -> None:
    async with session(fakes, "/bad/lost") as opened:
        await opened.tools()

        assert await opened.call("one", {}) == McpResult("found again")


async def test_server_that_knows_only_the_protocol_without_a_handshake_is_called(fakes: FakeServers) -> None:
    async with session(fakes, "/bad/modern") as opened:
        assert [tool.name for tool in await opened.tools()] == ["one"]
        assert await opened.call("one", {}) == McpResult("of 2026")


@ENDPOINTS
async def test_slow_call_is_an_error_after_its_time_and_ends_at_the_server(fakes: FakeServers, endpoint: str) -> None:
    ended = fakes.seen().ended

    result = await called(fakes, endpoint, "slow", replace(PATIENT, call_s=0.5))

    assert result.text == "The MCP server good failed: no answer within 0.5 s."
    await until(lambda: fakes.seen().ended > ended)


@pytest.mark.parametrize("transport", [Transport.AUTO, Transport.SSE])
async def test_server_that_hangs_at_the_handshake_is_an_error_after_its_time(
    fakes: FakeServers, transport: Transport
) -> None:
    servers = McpServers(limits=replace(PATIENT, open_s=0.2), allow_private=True)

    with pytest.raises(McpError, match=r"The MCP server good failed: no answer within 0\.2 s\."):
        await servers.tools(server(fakes, "/hang", transport=transport))


FAULTS = {
    "/nothing": "it answered 404",
    "/status/401": "it answered 401",
    "/status/500": "it answered 500",
    "/redirect?to=http://127.0.0.1:1/": "it answered 307, which leads elsewhere",
    "/redirect?code=302&to=/events/mcp": "it answered 302, which leads elsewhere",
    "/bad/pages": "its list of tools has more than 20 pages",
    "/bad/many": "it offers 200 tools, of which a response can have 128: name those that are needed in allowed_tools",
    "/bad/list": "its answer is none of MCP's",
    "/bad/text": "it answered with an error: Unexpected content type: text/plain; charset=utf-8",
    "/bad/json": "its answer is none of MCP's",
    "/bad/deep": "its answer is none of MCP's",
    "/bad/gzip": "it encodes its answers, which was not asked for",
    "/bad/error": "it answered with an error: no such tool yyy",
    "/bad/status": "it answered 500",
    "/bad/endless": "it sent more than 33,554,432 bytes",
    "/bad/notices": "it sent more than 33,554,432 bytes",
}


@pytest.mark.parametrize("path", FAULTS)
async def test_fault_of_a_server_is_an_error_in_words_without_its_url(fakes: FakeServers, path: str) -> None:
    async with session(fakes, path) as opened:
        with pytest.raises(McpError) as raised:
            await opened.tools()
        result = await opened.call("one", {})

    assert f"The MCP server good failed: {FAULTS[path]}" in str(raised.value)
    assert result.failed
    assert result.error
    assert "127.0.0.1" not in f"{raised.value} {result.text}"
    assert "169.254" not in f"{raised.value} {result.text}"
    assert len(str(raised.value)) < 700


async def test_server_that_asks_the_client_to_come_again_at_no_delay_is_asked_seldom(fakes: FakeServers) -> None:
    before = len(fakes.seen().requests)

    result = await called(fakes, "/bad/again", "one", replace(PATIENT, call_s=2.0))

    assert result.text == "The MCP server good failed: no answer within 2 s."
    assert len(fakes.seen().requests) - before <= 3 + 2 / 0.5 + 2


async def test_answer_to_another_request_is_none(fakes: FakeServers) -> None:
    assert (await called(fakes, "/bad/other", "one", replace(PATIENT, call_s=0.2))).failed


async def test_pattern_of_the_server_is_not_run_on_its_result(fakes: FakeServers) -> None:
    async with session(fakes, "/bad/regex") as opened:
        await opened.tools()
        result = await opened.call("one", {})

    assert result.text.startswith('{"a":"aaaa')
    assert not result.failed


async def test_tools_whose_names_could_be_a_part_of_the_prompt_are_left_out(fakes: FakeServers) -> None:
    async with session(fakes, "/bad/names") as opened:
        assert [tool.name for tool in await opened.tools()] == ["good.one"]


async def test_redirect_to_the_same_server_is_followed(fakes: FakeServers) -> None:
    assert await called(fakes, f"/redirect?to={HTTP}", "add", a=1) == McpResult("1")


async def test_tools_that_are_not_allowed_are_not_listed(fakes: FakeServers) -> None:
    some = ToolFilter(frozenset({"add", "echo"}))
    servers = McpServers(limits=PATIENT, allow_private=True)
    offered = [
        await servers.tools(server(fakes, HTTP, allowed_tools=filters))
        for filters in ((some,), (some, ToolFilter(read_only=True)), (ToolFilter(frozenset()),))
    ]

    assert [[tool.name for tool in tools] for tools in offered] == [["add", "echo"], ["add"], []]


async def test_secrets_of_a_server_are_in_no_text_and_no_log(
    fakes: FakeServers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    servers = McpServers(limits=PATIENT, allow_private=True)
    known = server(fakes, f"{HTTP}?key=secret-of-the-url", headers={"Authorization": TOKEN})

    result = await servers.call(known, "secret", {})

    assert result.text == "denied for ***"
    assert "a-token-of-the-operator" not in f"{known} {caplog.text}"
    assert "secret-of-the-url" not in f"{known} {caplog.text}"


async def test_session_that_was_left_connects_no_more(fakes: FakeServers) -> None:
    async with session(fakes, HTTP) as opened:
        pass

    assert (await opened.call("add", {"a": 1})).text == "The session with the MCP server has ended."


@ENDPOINTS
async def test_cancelled_call_ends_here_and_at_the_server(fakes: FakeServers, endpoint: str) -> None:
    before, seen = asyncio.all_tasks(), fakes.seen()
    task = asyncio.create_task(called(fakes, endpoint, "slow", replace(PATIENT, call_s=3600)))
    await until(lambda: fakes.seen().running > seen.running)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, HANG_S)

    assert asyncio.all_tasks() == before
    await until(lambda: fakes.seen().ended > seen.ended)


@pytest.mark.parametrize("transport", [Transport.HTTP, Transport.SSE])
async def test_cancelled_handshake_ends_though_the_server_hangs(fakes: FakeServers, transport: Transport) -> None:
    before, count = asyncio.all_tasks(), fakes.seen().requests.count
    servers = McpServers(limits=replace(PATIENT, open_s=3600), allow_private=True)
    asked = {Transport.HTTP: "POST /hang", Transport.SSE: "GET /hang"}[transport]
    already = count(asked)
    task = asyncio.create_task(servers.tools(server(fakes, "/hang", transport=transport)))
    await until(lambda: fakes.seen().requests.count(asked) > already)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, HANG_S)

    assert asyncio.all_tasks() == before


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # Path.iterdir opens one more for longer


async def use(fakes: FakeServers, number: int) -> McpResult | None:
    """One of the ways in which a session ends."""
    path = (HTTP, HTTP_JSON, SSE)[number % 3]
    ways: list[Callable[[McpSession], object]] = [
        lambda opened: opened.call("add", {"a": number}),
        lambda opened: opened.call("leave", {}),
        lambda opened: opened.call("large", {}),
    ]
    try:
        async with session(fakes, path) as opened:
            await opened.tools()
            if number % 4 == 3:
                raise KeyError(number)
            return await ways[number % 4](opened)  # type: ignore[misc,no-any-return]
    except KeyError:
        return None


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux lists a process's descriptors")
async def test_sessions_of_100_responses_leave_no_task_and_no_descriptor(fakes: FakeServers) -> None:
    await use(fakes, 0)
    before, descriptors = asyncio.all_tasks(), open_files()

    results = await asyncio.gather(*(use(fakes, number) for number in range(100)))

    assert [result.text for result in results[::4] if result] == [str(number) for number in range(0, 100, 4)]
    assert asyncio.all_tasks() == before
    assert open_files() == descriptors
