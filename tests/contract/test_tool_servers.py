"""What vLLM makes of tool servers that cannot start is what we refuse."""

from __future__ import annotations

from argparse import Namespace

import pytest

from gptoss_bento.bench.servers import free_port
from gptoss_bento.engine.tool_servers import check_started, required
from gptoss_bento.errors import EngineStartError

pytestmark = [pytest.mark.contract, pytest.mark.filterwarnings("default")]


async def test_demo_without_its_package_starts_without_a_tool() -> None:
    from vllm.entrypoints.mcp.tool_server import init_tool_server

    server = await init_tool_server(Namespace(tool_server="demo"))

    with pytest.raises(EngineStartError, match="TOOL_SERVER=demo"):
        check_started(server, "demo")


async def test_server_that_does_not_answer_ends_the_start_with_its_name() -> None:
    from vllm.entrypoints.mcp.tool_server import init_tool_server

    asked = f"127.0.0.1:{free_port()}"

    with pytest.raises(EngineStartError, match=f"{asked} .TOOL_SERVER. cannot be used: "), required(asked):
        await init_tool_server(Namespace(tool_server=asked))
