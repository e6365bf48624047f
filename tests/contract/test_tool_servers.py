"""What vLLM makes of tool servers, with a real server of MCP. What it makes of those that cannot start we refuse."""

from __future__ import annotations

import logging
import socket
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from gptoss_bento.bench.servers import free_port
from gptoss_bento.engine import replacements, tool_servers
from gptoss_bento.engine.failures import explanation
from gptoss_bento.engine.tool_servers import check_offers, explained, required
from gptoss_bento.errors import EngineStartError
from tests.mcp_server import ANSWER, mcp_server

pytestmark = [pytest.mark.contract, pytest.mark.filterwarnings("default")]


async def started(asked: str) -> Any:
    from vllm.entrypoints.mcp.tool_server import init_tool_server

    return await init_tool_server(Namespace(tool_server=asked))


async def offers_checked(asked: str) -> None:
    from vllm.entrypoints.mcp.tool_server import list_server_and_tools

    await check_offers(asked, list_server_and_tools)


async def test_server_that_does_not_answer_ends_the_start_with_its_name() -> None:
    asked = f"127.0.0.1:{free_port()}"

    with pytest.raises(EngineStartError, match=f"{asked} .TOOL_SERVER. cannot be used: "), required(asked):
        await started(asked)
    with pytest.raises(EngineStartError, match=f"{asked} .TOOL_SERVER. cannot be used: All connection attempts failed"):
        await offers_checked(asked)


async def test_server_that_works_is_named_with_its_tools(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with mcp_server(tmp_path) as python, mcp_server(tmp_path, "container") as container:
        asked = f"{python.address},{container.address}"
        with caplog.at_level(logging.INFO, "gptoss_bento"):
            await offers_checked(asked)
        server = await started(asked)

    assert [record.message for record in caplog.records if record.name.startswith("gptoss_bento")] == [
        f"tool server {python.address} is python, with the tools: python",
        f"tool server {container.address} is container, with the tools: python",
    ]
    assert server.has_tool("python")
    assert server.has_tool("container")


@pytest.mark.parametrize(
    ("names", "wrong"),
    [
        (["weather"], "cannot be used: its name is 'weather'; vLLM uses servers named python, browser or container"),
        (["python", "python"], "TOOL_SERVER names two servers that are both named python"),
    ],
)
async def test_server_that_no_request_could_use_ends_the_start(tmp_path: Path, names: list[str], wrong: str) -> None:
    with mcp_server(tmp_path, names[0]) as first, mcp_server(tmp_path, names[-1]) as last:
        asked = ",".join([first.address, last.address][-len(names) :])

        with pytest.raises(EngineStartError, match=wrong):
            await offers_checked(asked)
        assert set((await started(asked)).harmony_tool_descriptions) == set(names)  # vLLM takes it


async def test_server_that_hangs_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_servers, "ANSWER_LIMIT_S", 0.1)
    words = r"cannot be used: no answer within 0\.1 s"
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(EngineStartError, match=words):
        await offers_checked(f"127.0.0.1:{silent.getsockname()[1]}")


# Sessions


def unavailable() -> Callable[[str], Exception]:
    from vllm.exceptions import GracefulHTTPError

    return partial(GracefulHTTPError, http_status=HTTPStatus.SERVICE_UNAVAILABLE)


def refusal(code: str) -> tuple[HTTPStatus, str]:
    return HTTPStatus.SERVICE_UNAVAILABLE, f"The tool server python does not answer: {code}. Try again."


async def test_tool_is_called_with_the_models_code(tmp_path: Path) -> None:
    with mcp_server(tmp_path) as python:
        server = await started(python.address)
        replacements.explain_sessions(server)
        async with server.new_session("python", "1", None) as session:
            result = await session.call_tool("python", {"code": "print(42)"})

        assert result.content[0].text == ANSWER  # what vLLM's HarmonyContext reads
        assert python.calls() == "print(42)\n"


async def test_errors_within_a_session_of_vllms_still_become_groups(tmp_path: Path) -> None:
    with mcp_server(tmp_path) as python:
        server = await started(python.address)

        with pytest.raises(ExceptionGroup):
            async with server.new_session("python", "1", None):
                raise ZeroDivisionError
        with pytest.raises(ZeroDivisionError):
            async with explained(server.new_session, unavailable())("python", "1", None):
                raise ZeroDivisionError


async def test_server_that_has_gone_is_unavailable(tmp_path: Path) -> None:
    with mcp_server(tmp_path) as python:
        server = await started(python.address)
        replacements.explain_sessions(server)
        python.end()

        with pytest.raises(Exception, match="does not answer") as gone:
            async with server.new_session("python", "1", None):
                pass

    assert explanation(gone.value) == refusal("All connection attempts failed")


async def test_server_that_goes_within_a_session_is_unavailable(tmp_path: Path) -> None:
    with mcp_server(tmp_path) as python:
        server = await started(python.address)
        replacements.explain_sessions(server)

        async def call() -> None:
            async with server.new_session("python", "1", None) as session:
                python.end()
                await session.call_tool("python", {"code": "print(42)"})

        with pytest.raises(Exception, match="does not answer") as gone:
            await call()

    assert explanation(gone.value)[0] == HTTPStatus.SERVICE_UNAVAILABLE


async def test_server_that_hangs_is_unavailable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with mcp_server(tmp_path) as python:
        server = await started(python.address)
    monkeypatch.setattr(tool_servers, "ANSWER_LIMIT_S", 0.1)

    silent = socket.create_server(("127.0.0.1", python.port))
    with silent, pytest.raises(Exception, match="does not answer") as hangs:
        async with explained(server.new_session, unavailable())("python", "1", None):
            pass

    assert explanation(hangs.value) == refusal("no answer within 0.1 s")
