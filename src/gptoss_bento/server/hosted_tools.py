"""The tools that this worker runs for the model, made of the settings, and closed when the worker ends."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from gptoss_bento.config.settings import ServerSettings, Settings
from gptoss_bento.config.tool_choices import ToolChoices
from gptoss_bento.errors import HardwareError
from gptoss_bento.planning.plan import EnginePlan
from gptoss_bento.planning.tools import MCP, OPEN, PYTHON, SEARCH
from gptoss_bento.tools.interfaces import BrowserTool, HostedTools, McpAccess, PythonTool

if TYPE_CHECKING:
    from gptoss_bento.tools.python.containers import Containers

_MIB = 2**20
_TRIAL, _TRIED = "print(6 * 7)", "42"
_CPU_FOR_EACH_SECOND = 2  # threads of numpy, for as long as a call may take


logger = logging.getLogger(__name__)


@asynccontextmanager
async def hosted_tools(settings: Settings, plan: EnginePlan) -> AsyncIterator[HostedTools | None]:
    """The tools of the plan that are on; None if none is. What they hold ends with the context."""
    on = {name for name, tool in plan.tools.items() if tool.is_on}
    if not on:
        yield None
        return
    server, choices = settings.server, settings.tools
    async with AsyncExitStack() as stack:
        yield HostedTools(
            python=await _python(server, choices, stack) if PYTHON in on else None,
            browser=_browser(server, choices, stack) if on & {SEARCH, OPEN} else None,
            mcp=_mcp(server, choices) if MCP in on else None,
            call_timeout_s=server.tool_timeout_s,
            turn_timeout_s=server.tool_turn_timeout_s,
            gives_way=frozenset({PYTHON} if choices.python == "auto" else ()),
        )


async def _python(server: ServerSettings, choices: ToolChoices, stack: AsyncExitStack) -> PythonTool | None:
    """The containers, of which one has computed something: what a kernel has, its container may still forbid.

    Raises:
        HardwareError: none starts here, and the operator has turned Python on.
    """
    from gptoss_bento.tools.python import containers as python

    limits = python.Limits(
        memory_bytes=server.python_tool_memory_mb * _MIB,
        timeout_s=server.python_tool_timeout_s,
        cpu_s=server.python_tool_timeout_s * _CPU_FOR_EACH_SECOND,
        idle_s=server.python_tool_idle_s,
        containers=server.python_tool_containers,
    )
    containers = python.Containers(limits)
    stack.push_async_callback(containers.close)
    why = await _failure(containers)
    if why is None:
        return containers
    if choices.python == "on":
        raise HardwareError(f"{choices.python_origin} asks for Python, and no confined child computes here: {why}")
    logger.warning("the tool python is off, because no confined child computes here: %s", why)
    return None


async def _failure(containers: Containers) -> str | None:
    """What the model would read in place of a result; None: a child has started, computed, and ended."""
    container_id = containers.new_id()
    ran = await containers.run(container_id, _TRIAL)
    await containers.end(container_id)
    return None if ran.text.strip() == _TRIED and not ran.failed else ran.text.strip()


def _browser(server: ServerSettings, choices: ToolChoices, stack: AsyncExitStack) -> BrowserTool:
    from gptoss_bento.tools.browser.backends import BACKENDS
    from gptoss_bento.tools.browser.domains import DomainRule
    from gptoss_bento.tools.browser.limits import Limits
    from gptoss_bento.tools.browser.search import Searcher
    from gptoss_bento.tools.browser.session import Browser

    limits = Limits()
    key = choices.search_key.get_secret_value() if choices.search_key else ""
    found = BACKENDS[choices.search] if choices.search else None
    searcher = Searcher(found, key=key, url=server.search_url, limits=limits) if found else None
    rule = DomainRule.of(server.browser_allowed_domains, server.browser_blocked_domains)
    browser = Browser(
        searcher,
        limits=limits,
        rule=rule,
        allow_private=server.tools_private_addresses,
        may_open=choices.opens,
    )
    stack.push_async_callback(browser.close)
    return browser


def _mcp(server: ServerSettings, choices: ToolChoices) -> McpAccess:
    from gptoss_bento.engine.hosted.mcp_access import McpServersAccess
    from gptoss_bento.tools.mcp.server import Limits
    from gptoss_bento.tools.mcp.servers import McpServers

    servers = McpServers(
        choices.mcp_servers, Limits(call_s=server.tool_timeout_s), allow_private=server.tools_private_addresses
    )
    return McpServersAccess(servers, may_bring=server.mcp_request_servers, allow_http=server.tools_private_addresses)
