"""`TOOL_SERVER`: servers that vLLM connects to, said before a start; or `demo`, which means this server's own tools.

Sources: vLLM 0.32, entrypoints/mcp/tool_server.py and tool.py, whose demo runs the tools of the package gpt-oss: Python
in Docker, and a browser by Exa. Here neither is used.
"""

from __future__ import annotations

from collections.abc import Mapping

from gptoss_bento.concurrency import first_of
from gptoss_bento.config.settings import is_unset

DEMO = "demo"
PYTHON_BACKEND = "PYTHON_EXECUTION_BACKEND"
REQUEST_TYPES = {"python": "code_interpreter", "browser": "web_search_preview", "container": "container"}
"""The servers that vLLM uses for GPT-OSS, and how requests ask for each: BUILTIN_TOOL_TO_MCP_SERVER_LABEL."""

_OWN_SERVERS = "tool servers as host:port, with commas between them"


def listed_servers(text: str) -> list[str]:
    """The servers, without what vLLM would make a part of their addresses."""
    return [server.strip() for server in text.split(",") if server.strip()]


def as_vllm_reads(text: str) -> str:
    """The same list without spaces and without empty items: vLLM would connect to `http:// b:2/sse`."""
    return ",".join(listed_servers(text))


def problem(option: str, value: object) -> str | None:
    """What is allowed, if the option is this one and no tool could start; else None."""
    if option != "tool_server":
        return None
    servers = listed_servers(str(value))
    if servers == [DEMO]:
        return None
    wrong = [server for server in servers or [str(value)] if not is_address(server)]
    return f"{_OWN_SERVERS}, or {DEMO} alone; {wrong[0]!r} is not host:port" if wrong else None


def asked_for_by(name: str) -> str:
    """What a request needs for a server of this name; `container` is no type of a tool in OpenAI's API."""
    labelled = f"mcp and the label {name}, if VLLM_GPT_OSS_SYSTEM_TOOL_MCP_LABELS has it"
    return labelled if name == "container" else REQUEST_TYPES[name]


def name_problem(name: str) -> str | None:
    """Why no request can use a server of this name; None if one can.

    Args:
        name: what the server calls itself.
    """
    if name in REQUEST_TYPES:
        return None
    *others, last = REQUEST_TYPES
    return f"its name is {name!r}; vLLM uses servers named {', '.join(others)} or {last} alone for GPT-OSS"


def reason(error: BaseException) -> str:
    """Why a server cannot be used."""
    error = first_of(error)
    return str(error).strip().split("\n")[0] or type(error).__name__


def is_address(server: str) -> bool:
    """Whether it is host:port, perhaps with a path; vLLM puts `http://` in front and `/sse` behind."""
    host, _, port = server.partition("/")[0].rpartition(":")
    return bool(host) and "://" not in server and port.isdecimal() and int(port) <= 65535


def backend_problem(servers: str, environ: Mapping[str, str]) -> str | None:
    """What is allowed in place of an explicit place for the demo's Python, if there is one; else None.

    Args:
        servers: the value of the option; empty without one.
    """
    if servers != DEMO or is_unset(environ.get(PYTHON_BACKEND, "")):
        return None
    return f"nothing with TOOL_SERVER={DEMO}: code runs in child processes that the kernel confines, not in Docker"


def without_effect(servers: str, environ: Mapping[str, str]) -> str | None:
    """A sentence for the operator, if the place for the demo's Python is set without the demo; else None."""
    if servers == DEMO or is_unset(environ.get(PYTHON_BACKEND, "")):
        return None
    return f"{PYTHON_BACKEND} has no effect; PYTHON_TOOL says whether code runs here"
