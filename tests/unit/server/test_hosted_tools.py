"""The tools that a worker runs, as the settings have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptoss_bento.config.environment import load_settings
from gptoss_bento.config.profile import load_profile
from gptoss_bento.errors import HardwareError
from gptoss_bento.planning.planner import make_plan
from gptoss_bento.planning.tools import settled
from gptoss_bento.server.hosted_tools import hosted_tools
from gptoss_bento.tools.browser.session import Browser
from gptoss_bento.tools.interfaces import HostedTools, ToolRefusedError
from gptoss_bento.tools.python import confinement
from gptoss_bento.tools.python.containers import Containers, Ran
from tests.fakes import machine

KEY = "a-key-of-a-search-backend"
OLD_KERNEL = "the kernel has no Landlock"
confined = pytest.mark.skipif(confinement.problem() is not None, reason=f"cannot confine: {confinement.problem()}")


async def made(problem: str | None = None, **variables: str) -> HostedTools | None:
    settings = load_settings(variables)
    plan = settled(make_plan(settings, load_profile("demo"), machine()), settings, problem)
    async with hosted_tools(settings, plan) as tools:
        return tools


async def test_worker_without_tools_has_none() -> None:
    assert await made() is None


@confined
async def test_worker_has_the_tools_that_are_on() -> None:
    tools = await made(PYTHON_TOOL="on", TOOL_TIMEOUT_S="7", TOOL_TURN_TIMEOUT_S="70")

    assert tools
    assert isinstance(tools.python, Containers)
    assert (tools.browser, tools.mcp, set(tools.names)) == (None, None, {"python"})
    assert (tools.call_timeout_s, tools.turn_timeout_s) == (7, 70)


async def test_python_that_the_kernel_cannot_confine_is_not_made() -> None:
    assert await made(OLD_KERNEL, PYTHON_TOOL="auto") is None


@confined
@pytest.mark.parametrize(("choice", "gives_way"), [("on", set()), ("auto", {"python"})])
async def test_python_gives_way_to_a_tool_server_unless_it_was_asked_for(choice: str, gives_way: set[str]) -> None:
    tools = await made(PYTHON_TOOL=choice)

    assert tools
    assert tools.gives_way == gives_way


@pytest.fixture
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """No child starts, although the kernel has all that it takes."""

    async def run(*_: object) -> Ran:
        return Ran("[Python could not be started: Operation not permitted]", failed=True)

    monkeypatch.setattr(Containers, "run", run)


@pytest.mark.usefixtures("no_child")
async def test_python_that_was_asked_for_and_does_not_start_is_refused() -> None:
    with pytest.raises(HardwareError, match=r"PYTHON_TOOL asks for Python, .*: Operation not permitted\]"):
        await made(PYTHON_TOOL="on")


@pytest.mark.usefixtures("no_child")
async def test_python_that_was_left_to_the_machine_and_does_not_start_is_off(caplog: pytest.LogCaptureFixture) -> None:
    tools = await made(PYTHON_TOOL="auto", BROWSER_OPEN="1")

    assert tools
    assert set(tools.names) == {"browser"}
    assert "the tool python is off, because no confined child computes here" in caplog.text


@confined
async def test_containers_end_with_their_worker() -> None:
    settings = load_settings({"PYTHON_TOOL": "on"})
    plan = make_plan(settings, load_profile("demo"), machine())
    before = children()

    async with hosted_tools(settings, plan) as tools:
        assert tools
        assert tools.python
        container = tools.python.new_id()
        assert (await tools.python.run(container, "x = 6")).failed is False
        assert "42" in (await tools.python.run(container, "print(x * 7)")).text
        running = children() - before
        assert running

    assert not children() & running


def children() -> set[str]:
    """The child processes of this thread."""
    return set(Path("/proc/thread-self/children").read_text().split())


async def test_browser_without_a_search_has_no_searcher() -> None:
    tools = await made(BROWSER_OPEN="1", BROWSER_BLOCKED_DOMAINS="a.example")

    assert tools
    assert isinstance(tools.browser, Browser)
    assert tools.browser.searcher is None
    assert not tools.browser.rule.allows("www.a.example")


async def test_browser_searches_with_the_backend_of_the_operator() -> None:
    tools = await made(SEARCH_BACKEND="brave", BRAVE_API_KEY=KEY)

    assert tools
    assert isinstance(tools.browser, Browser)
    assert tools.browser.searcher
    assert tools.browser.searcher.name == "brave"


async def test_browser_that_may_open_nothing_has_the_search_alone() -> None:
    tools = await made(SEARCH_BACKEND="brave", BRAVE_API_KEY=KEY, BROWSER_OPEN="0")

    assert tools
    assert tools.browser
    assert (await tools.browser.session().open("https://a.example/")).failed


async def test_mcp_servers_of_the_operator_are_named_by_their_labels(tmp_path: Path) -> None:
    file = tmp_path / "servers.yaml"
    file.write_text("weather: {url: 'https://a.example/mcp'}\n")
    tools = await made(MCP_SERVERS=str(file))

    assert tools
    assert tools.mcp
    assert tools.mcp.server({"type": "mcp", "server_label": "weather"}, "tools[0]").label == "weather"
    with pytest.raises(ToolRefusedError, match=r"tools\[0\]"):
        tools.mcp.server({"type": "mcp", "server_label": "x", "server_url": "https://b.example/mcp"}, "tools[0]")


async def test_mcp_servers_of_requests_are_taken_where_the_operator_lets_them() -> None:
    tools = await made(MCP_REQUEST_SERVERS="1")

    assert tools
    assert tools.mcp
    asked = {"type": "mcp", "server_label": "x", "server_url": "https://b.example/mcp"}
    assert tools.mcp.server(asked, "tools[0]").label == "x"
