"""Which tools of the server a model may call: on or off, how, and why. Pure; the caller asks the kernel."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlsplit

from gptoss_bento.config.settings import ServerSettings, Settings
from gptoss_bento.errors import HardwareError
from gptoss_bento.hardware.probe import GIB, MIB
from gptoss_bento.planning.plan import EnginePlan, PlannedTool

PYTHON = "python"
SEARCH = "web_search"
OPEN = "open"
MCP = "mcp"


def with_tools(plan: EnginePlan, settings: Settings) -> EnginePlan:
    """The plan with its tools by name. Whether the kernel can confine Python is not known yet: see `settled`."""
    tools = {
        PYTHON: _python(settings),
        SEARCH: _search(settings),
        OPEN: _open(settings),
        MCP: _mcp(settings),
    }
    return replace(plan, tools=tools, warnings=(*plan.warnings, *_memory_warnings(plan, settings)))


def settled(plan: EnginePlan, settings: Settings, problem: str | None) -> EnginePlan:
    """The plan for a machine whose kernel was asked.

    Args:
        problem: why its kernel cannot confine code; None: it can.

    Raises:
        HardwareError: it cannot, and the operator has turned Python on.
    """
    choice = settings.tools
    if choice.python == "off" or problem is None:
        return replace(plan, tools={**plan.tools, PYTHON: _python(settings, is_known=True)})
    if choice.python == "on":
        raise HardwareError(
            f"{choice.python_origin} asks for Python, which this machine cannot confine: {problem}. PYTHON_TOOL=auto "
            "starts without it."
        )
    off = PlannedTool(False, f"off: {problem}", f"{choice.python_origin}=auto")
    return replace(plan, tools={**plan.tools, PYTHON: off})


def _memory_warnings(plan: EnginePlan, settings: Settings) -> tuple[str, ...]:
    """A warning where the containers of Python together may take more than the machine has; of a named one nothing."""
    server, has_bytes = settings.server, plan.hardware.memory_bytes
    if settings.tools.python == "off" or not has_bytes:
        return ()
    most = plan.api_workers.value * server.python_tool_containers * server.python_tool_memory_mb * MIB
    if most <= has_bytes:
        return ()
    return (
        f"containers of Python may take {most / GIB:.0f} GiB of memory together, and this machine has "
        f"{has_bytes / GIB:.0f}; PYTHON_TOOL_CONTAINERS and PYTHON_TOOL_MEMORY_MB lower it",
    )


def _python(settings: Settings, *, is_known: bool = False) -> PlannedTool:
    choice, server = settings.tools, settings.server
    if choice.python == "off":
        return PlannedTool(False, "off", choice.python_origin)
    bounds = (
        f"{server.python_tool_containers} containers of {server.python_tool_memory_mb} MB for each API worker, "
        f"{server.python_tool_timeout_s:g} s a call"
    )
    confined = (
        "confined by the kernel, if it can" if choice.python == "auto" and not is_known else "confined by the kernel"
    )
    return PlannedTool(True, f"on, {confined}: {bounds}", choice.python_origin)


def _search(settings: Settings) -> PlannedTool:
    choice = settings.tools
    if choice.search is None:
        return PlannedTool(False, "off: no SEARCH_BACKEND", choice.search_origin)
    url = settings.server.search_url
    place = f" at {urlsplit(url).netloc}" if url else ""  # its query may have a secret
    return PlannedTool(True, f"on, by {choice.search}{place}", choice.search_origin)


def _open(settings: Settings) -> PlannedTool:
    choice = settings.tools
    if not choice.opens:
        return PlannedTool(False, "off", choice.opens_origin)
    return PlannedTool(True, f"on, {_reach(settings.server)}{_domains(settings.server)}", choice.opens_origin)


def _reach(server: ServerSettings) -> str:
    return "private addresses, too" if server.tools_private_addresses else "public addresses alone"


def _domains(server: ServerSettings) -> str:
    allowed, blocked = len(server.browser_allowed_domains), len(server.browser_blocked_domains)
    parts = [f"domains allowed: {allowed}"] if allowed else []
    parts += [f"domains blocked: {blocked}"] if blocked else []
    return "".join(f", {part}" for part in parts)


def _mcp(settings: Settings) -> PlannedTool:
    servers, requests = settings.tools.mcp_servers, settings.server.mcp_request_servers
    origins = (["MCP_SERVERS"] if servers else []) + (["MCP_REQUEST_SERVERS"] if requests else [])
    if not origins:
        return PlannedTool(False, "off", "default")
    named = [", ".join(server.label for server in servers)] if servers else []
    named += [f"servers of requests ({_reach(settings.server)})"] if requests else []
    return PlannedTool(True, f"on: {'; '.join(named)}", " and ".join(origins))
