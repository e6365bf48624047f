"""Whether the tools that the plan has on would work: a confined child that computes, the search backend, MCP servers.

Each check runs in an event loop of its own, in a thread that the examination does not wait for.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from gptoss_bento.config.settings import Settings
from gptoss_bento.doctor.finding import Finding, error, note, ok, warning
from gptoss_bento.errors import HardwareError
from gptoss_bento.tools.browser.backends import BACKENDS
from gptoss_bento.tools.mcp.server import Limits, Server

PYTHON_CODE, PYTHON_ANSWER = "print(2**200 % 97)", str(2**200 % 97)
_REFUSED = "PYTHON_TOOL=auto starts without it; docs/tools.md says what the kernel and its container need."
_NAMED_AT_MOST = 6
_QUERY = "lighthouse"  # says nothing of who asks

Problem = Callable[[], str | None]
Compute = Callable[[str], str]
"""Runs code in a confined child, and returns what the model would read."""


def check_python(settings: Settings, problem: Problem, compute: Compute) -> Iterator[Finding]:
    """Whether code can be confined here, by doing so; nothing where the tool is off.

    Args:
        problem: why the kernel cannot.
        compute: runs code in a confined child.
    """
    choice = settings.tools
    if choice.python == "off":
        return
    if why := problem():
        wanted = choice.python == "on"
        found = f"{choice.python_origin} asks for it, and {why}" if wanted else f"off: {why}"
        yield error("tool python", found, _REFUSED, HardwareError) if wanted else note("tool python", found)
        return
    began = time.monotonic()
    answer = compute(PYTHON_CODE).strip()
    if answer == PYTHON_ANSWER:
        took = time.monotonic() - began
        yield ok("tool python", f"a confined child has started and computed in {took:.2f} s: {PYTHON_CODE} is {answer}")
    else:
        yield warning("tool python", f"a confined child answered {answer!r} to {PYTHON_CODE}", _REFUSED)


def compute_confined(settings: Settings, timeout_s: float) -> Compute:
    """Runs code as the service would, within these seconds."""

    def compute(code: str) -> str:
        from gptoss_bento.tools.python.containers import Containers
        from gptoss_bento.tools.python.limits import Limits as PythonLimits

        async def run() -> str:
            containers = Containers(PythonLimits(settings.server.python_tool_memory_mb * 2**20, timeout_s))
            try:
                return (await containers.run(containers.new_id(), code)).text
            finally:
                await containers.close()

        return asyncio.run(run())

    return compute


def check_search(settings: Settings, timeout_s: float, network: bool, search: bool) -> Iterator[Finding]:
    """Whether the search backend can be reached, and, if asked for, whether it searches with this key.

    Args:
        timeout_s: seconds for it.
        network: whether to connect at all.
        search: whether to send one search, which the backend may charge.
    """
    name = settings.tools.search
    if name is None:
        return
    url = settings.server.search_url or BACKENDS[name].url or ""
    place = urlsplit(url).netloc  # its query may have a secret
    if not network:
        yield note("tool search", f"{name} not asked (--offline)")
    elif why := _unreachable(url, timeout_s):
        yield warning("tool search", f"{name} cannot be reached at {place}: {why}", "Open the way, or set SEARCH_URL.")
    elif search:
        yield _searched(settings, name, timeout_s)
    else:
        yield ok("tool search", f"{name} can be reached at {place}; its key was not tried (--search)")


def _unreachable(url: str, timeout_s: float) -> str | None:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout_s).close()
    except OSError as reason:
        return reason.strerror or str(reason)
    return None


def _searched(settings: Settings, name: str, timeout_s: float) -> Finding:
    from gptoss_bento.tools.browser.backends import Query
    from gptoss_bento.tools.browser.failures import BrowserError
    from gptoss_bento.tools.browser.limits import Limits as BrowserLimits
    from gptoss_bento.tools.browser.search import Searcher

    key = settings.tools.search_key

    async def ask() -> int:
        limits = BrowserLimits(search_s=timeout_s)
        text = key.get_secret_value() if key else ""
        searcher = Searcher(BACKENDS[name], key=text, url=settings.server.search_url, limits=limits)
        try:
            return len(await searcher.results(Query(_QUERY, 3)))
        finally:
            await searcher.close()

    remedy = "The line on stderr has the status. Is the key right, and not used up?"
    try:
        count = asyncio.run(ask())
    except BrowserError as failure:
        return warning("tool search", f"{name} did not search: {failure}", remedy)
    found = f"{name} gave {count} results for one search"
    return ok("tool search", found) if count else warning("tool search", found, remedy)


def load_mcp_client() -> None:
    """Imports the client, which takes about as long as a whole check may."""
    import gptoss_bento.tools.mcp.servers  # noqa: F401


def check_mcp_server(server: Server, timeout_s: float, network: bool) -> Iterator[Finding]:
    """What one server of MCP_SERVERS offers."""
    if not network:
        yield note("tool mcp", f"{server.label} not asked (--offline)")
        return
    from gptoss_bento.tools.mcp.failures import McpError

    try:
        names = asyncio.run(_offered(server, timeout_s))
    except McpError as failure:
        remedy = "The service starts without it, and requests with it get an error. Start it, or correct MCP_SERVERS."
        yield warning("tool mcp", f"{server.label}: {failure}", remedy)
        return
    if names:
        more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
        yield ok("tool mcp", f"{server.label} offers {', '.join(names[:_NAMED_AT_MOST])}{more}")
    else:
        yield warning("tool mcp", f"{server.label} offers no tool", "Is allowed_tools in MCP_SERVERS right?")


async def _offered(server: Server, timeout_s: float) -> list[str]:
    from gptoss_bento.tools.mcp.servers import McpServers

    servers = McpServers([server], Limits(open_s=timeout_s, list_s=timeout_s))
    return [tool.name for tool in await servers.tools(server)]
