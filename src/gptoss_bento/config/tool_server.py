"""`TOOL_SERVER`: what vLLM makes of it, said before a start. vLLM turns a tool off that cannot start, in a log line.

Sources: vLLM 0.32, entrypoints/mcp/tool_server.py and tool.py; gpt_oss 0.0.9, tools/python_docker/docker_tool.py, whose
package wants Python 3.12.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import metadata

from packaging.version import InvalidVersion, Version

from gptoss_bento.concurrency import first_of

DEMO = "demo"
PYTHON_BACKEND = "PYTHON_EXECUTION_BACKEND"
BROWSER_KEY = "EXA_API_KEY"
REQUEST_TYPES = {"python": "code_interpreter", "browser": "web_search_preview", "container": "container"}
"""The servers that vLLM uses for GPT-OSS, and how requests ask for each: BUILTIN_TOOL_TO_MCP_SERVER_LABEL."""

_OLDEST = Version("0.0.7")  # MIN_GPT_OSS_VERSION
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
        return _demo_problem()
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


def _demo_problem() -> str | None:
    version = gpt_oss_version()
    if version and version >= _OLDEST:
        return None
    found = f"{version} is installed" if version else "it is not installed"
    needed = f"{DEMO} needs the package gpt-oss {_OLDEST} or newer ({found}): pip install gpt-oss, with Python 3.12"
    return f"{_OWN_SERVERS}; {needed}"


def is_address(server: str) -> bool:
    """Whether it is host:port, perhaps with a path; vLLM puts `http://` in front and `/sse` behind."""
    host, _, port = server.partition("/")[0].rpartition(":")
    return bool(host) and "://" not in server and port.isdecimal() and int(port) <= 65535


def gpt_oss_version() -> Version | None:
    """The version of the installed package; None if there is none, or none that can be read."""
    try:
        return Version(metadata.version("gpt_oss"))
    except (metadata.PackageNotFoundError, InvalidVersion):
        return None


def effects(servers: str, environ: Mapping[str, str]) -> Iterator[str]:
    """What will happen, in sentences for the operator.

    Args:
        servers: the value of the option; empty without one.
    """
    if servers.strip() == DEMO:
        yield f"TOOL_SERVER: {DEMO} gives the model the tool python, which runs code that it wrote, in Docker"
        browser = "searches through Exa" if environ.get(BROWSER_KEY, "").strip() else f"is off without {BROWSER_KEY}"
        yield f"TOOL_SERVER: the tool browser {browser}"
    elif environ.get(PYTHON_BACKEND, "").strip():
        yield f"{PYTHON_BACKEND} has no effect without TOOL_SERVER={DEMO}"
