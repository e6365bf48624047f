"""Whether the tool servers that were asked for can be used: vLLM goes on without a tool that could not start.

Wrappers of vLLM's functions; replacements.py applies them.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

from gptoss_bento.concurrency import first_of
from gptoss_bento.config.tool_server import listed_servers, name_problem, reason
from gptoss_bento.errors import EngineStartError

ANSWER_LIMIT_S = 30.0
"""How long a server may take to say what it offers, and to begin a session. The client of MCP would wait for ever."""

_CLIENT = {"mcp", "mcp_types", "httpx2", "httpcore2"}
"""The libraries whose errors, within a session, are those of the tool server."""
_CONNECTION_CLOSED = -32000  # mcp.types.CONNECTION_CLOSED

logger = logging.getLogger(__name__)

Ask = Callable[[str], Awaitable[tuple[Any, Any]]]
NewSession = Callable[..., AbstractAsyncContextManager[Any]]


@contextmanager
def required(asked: str | None) -> Iterator[None]:
    """In which vLLM connects to its tool servers.

    Raises:
        EngineStartError: it cannot, and TOOL_SERVER (`asked`) names any.
    """
    try:
        yield
    except Exception as error:
        if not asked:
            raise
        raise EngineStartError(f"The tool server {asked} (TOOL_SERVER) cannot be used: {_reason(error)}") from error


async def check_offers(asked: str | None, ask: Ask) -> None:
    """Asks each server what it is, before vLLM does, which has no time limit and takes what it cannot use.

    Args:
        asked: TOOL_SERVER.
        ask: vLLM's `list_server_and_tools`.

    Raises:
        EngineStartError: a server does not answer in time, no request could use it, or another one has its name.
    """
    names: set[str] = set()
    for server in listed_servers(asked or ""):
        with required(server):
            async with asyncio.timeout(ANSWER_LIMIT_S):
                about, offered = await ask(f"http://{server}/sse")
        name, tools = about.server_info.name, ", ".join(tool.name for tool in offered.tools)
        if problem := name_problem(name):
            raise EngineStartError(f"The tool server {server} (TOOL_SERVER) cannot be used: {problem}.")
        if name in names:
            raise EngineStartError(f"TOOL_SERVER names two servers that are both named {name}. vLLM would drop one.")
        names.add(name)
        logger.info("tool server %s is %s, with the tools: %s", server, name, tools)


def explained(new_session: NewSession, unavailable: Callable[[str], Exception]) -> NewSession:
    """Sessions whose errors are those of the request or of the tool server; MCP's client makes groups of both.

    Args:
        new_session: vLLM's method.
        unavailable: makes the error of a server that does not answer, of its text.
    """

    @asynccontextmanager
    async def session(name: str, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        is_open = False
        try:
            async with asyncio.timeout(ANSWER_LIMIT_S) as limit, new_session(name, *args, **kwargs) as opened:
                limit.reschedule(None)
                is_open = True
                yield opened
        except Exception as error:
            first = first_of(error)
            if isinstance(first, json.JSONDecodeError):  # the model's arguments; not the client's mistake
                raise unavailable(
                    f"The model's call of the tool server {name} is no JSON: {first}. Try again."
                ) from error
            if _is_the_servers(first) or not is_open:
                what = "refused the call" if _answered(first) else "does not answer"
                raise unavailable(f"The tool server {name} {what}: {_reason(first)}. Try again.") from error
            raise first from None

    return session


def _is_the_servers(error: BaseException) -> bool:
    return any(kind.__module__.split(".")[0] in _CLIENT for kind in type(error).mro())


def _answered(error: BaseException) -> bool:
    """Whether it is an answer with an error, and not the end of the connection."""
    said = getattr(error, "error", None)
    return getattr(said, "code", _CONNECTION_CLOSED) != _CONNECTION_CLOSED


def _reason(error: BaseException) -> str:
    return f"no answer within {ANSWER_LIMIT_S:g} s" if isinstance(first_of(error), TimeoutError) else reason(error)
