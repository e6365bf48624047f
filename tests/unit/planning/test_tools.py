"""Which tools of the server a model may call, as the plan says."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from gptoss_bento.config.environment import load_settings
from gptoss_bento.config.profile import load_profile
from gptoss_bento.errors import HardwareError
from gptoss_bento.planning.plan import EnginePlan, PlannedTool
from gptoss_bento.planning.planner import make_plan
from gptoss_bento.planning.report import as_json, print_plan
from gptoss_bento.planning.tools import settled
from tests.fakes import machine

KEY = "a-key-of-a-search-backend"
OLD_KERNEL = "Linux 5.10 has no Landlock"
BOUNDS = "16 containers of 512 MB for each API worker, 60 s a call"


def planned(**variables: str) -> EnginePlan:
    return make_plan(load_settings(variables), load_profile("demo"), machine())


def settled_plan(problem: str | None, **variables: str) -> EnginePlan:
    return settled(planned(**variables), load_settings(variables), problem)


def test_tools_are_off_by_default_and_named() -> None:
    assert planned().tools == {
        "python": PlannedTool(False, "off", "default"),
        "web_search": PlannedTool(False, "off: no SEARCH_BACKEND", "default"),
        "open": PlannedTool(False, "off", "default"),
        "mcp": PlannedTool(False, "off", "default"),
    }


def test_python_is_planned_with_its_bounds() -> None:
    on = PlannedTool(True, f"on, confined by the kernel: {BOUNDS}", "PYTHON_TOOL")

    assert planned(PYTHON_TOOL="on").tools["python"] == on
    assert settled_plan(None, PYTHON_TOOL="on").tools["python"] == on
    assert settled_plan(None, PYTHON_TOOL="auto").tools["python"] == on


def test_python_that_depends_on_the_kernel_is_so_for_a_machine_that_was_only_named() -> None:
    assert planned(PYTHON_TOOL="auto").tools["python"].how == f"on, confined by the kernel, if it can: {BOUNDS}"


def test_python_by_itself_is_off_where_the_kernel_cannot_confine_it() -> None:
    found = settled_plan(OLD_KERNEL, PYTHON_TOOL="auto").tools["python"]

    assert found == PlannedTool(False, f"off: {OLD_KERNEL}", "PYTHON_TOOL=auto")


@pytest.mark.parametrize(("name", "value"), [("PYTHON_TOOL", "on"), ("TOOL_SERVER", "demo")])
def test_python_that_was_asked_for_is_refused_where_the_kernel_cannot_confine_it(name: str, value: str) -> None:
    with pytest.raises(HardwareError, match=f"{name}.* asks for Python, .* cannot confine: {OLD_KERNEL}") as refused:
        settled_plan(OLD_KERNEL, **{name: value})

    assert refused.value.exit_code == 78


def test_containers_that_may_take_more_memory_than_there_is_are_a_warning() -> None:
    assert planned(PYTHON_TOOL="on").warnings == ()
    assert planned(PYTHON_TOOL_CONTAINERS="100").warnings == (), "the tool is off"

    (warning,) = planned(PYTHON_TOOL="on", PYTHON_TOOL_CONTAINERS="100").warnings
    assert warning.startswith("containers of Python may take 50 GiB of memory together, and this machine has 32;")


def test_python_that_is_off_needs_no_kernel() -> None:
    assert settled_plan(OLD_KERNEL).tools["python"] == PlannedTool(False, "off", "default")


def test_browser_is_planned_with_its_backend_reach_and_domains() -> None:
    tools = planned(
        SEARCH_BACKEND="exa",
        EXA_API_KEY=KEY,
        BROWSER_ALLOWED_DOMAINS="a.example,b.example",
        BROWSER_BLOCKED_DOMAINS="c.a.example",
    ).tools

    assert tools["web_search"] == PlannedTool(True, "on, by exa", "SEARCH_BACKEND")
    domains = "domains allowed: 2, domains blocked: 1"
    assert tools["open"] == PlannedTool(True, f"on, public addresses alone, {domains}", "SEARCH_BACKEND")


def test_search_at_another_address_is_planned_without_what_its_query_may_hide() -> None:
    tools = planned(SEARCH_BACKEND="searxng", SEARCH_URL="http://searxng:8080/?token=hidden").tools

    assert tools["web_search"].how == "on, by searxng at searxng:8080"


def test_pages_alone_are_planned_without_a_search() -> None:
    tools = planned(BROWSER_OPEN="1", TOOLS_PRIVATE_ADDRESSES="1").tools

    assert not tools["web_search"].is_on
    assert tools["open"] == PlannedTool(True, "on, private addresses, too", "BROWSER_OPEN")


def test_mcp_servers_are_planned_by_their_labels(tmp_path: Path) -> None:
    file = tmp_path / "servers.yaml"
    file.write_text("weather: {url: 'https://a.example/mcp'}\nfiles: {url: 'https://b.example/mcp'}\n")
    tools = planned(MCP_SERVERS=str(file), MCP_REQUEST_SERVERS="1").tools

    how = "on: weather, files; servers of requests (public addresses alone)"
    assert tools["mcp"] == PlannedTool(True, how, "MCP_SERVERS and MCP_REQUEST_SERVERS")


def test_tools_are_printed_and_in_the_json_without_the_key() -> None:
    plan = planned(SEARCH_BACKEND="exa", EXA_API_KEY=KEY)
    stream = StringIO()
    print_plan(plan, Console(file=stream, width=200))

    assert "tool web_search  " in stream.getvalue()
    assert as_json(plan)["tools"]["web_search"] == {"on": True, "how": "on, by exa", "origin": "SEARCH_BACKEND"}
    assert KEY not in stream.getvalue() + str(as_json(plan))
