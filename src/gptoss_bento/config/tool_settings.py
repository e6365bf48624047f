"""Reads which tools the operator wants out of settings that depend on one another. Reads the files that they name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.config.tool_choices import Backend, ToolChoices
from gptoss_bento.tools.mcp.server import Server
from gptoss_bento.tools.mcp.servers_file import ServersFileError, read_servers

DEMO_ORIGIN = "TOOL_SERVER=demo"
KEYS = {
    "exa": "exa_api_key",
    "you": "ydc_api_key",
    "brave": "brave_api_key",
    "tavily": "tavily_api_key",
}
"""The backends that need a key, and the setting of each one's own."""

_KEY = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class Problem:
    """A variable that is wrong, its value (empty: not to be shown), and what is allowed."""

    variable: str
    value: str
    allowed: str


@dataclass(frozen=True)
class ReadChoices:
    """The choices, what is wrong with the settings, and what has no effect."""

    choices: ToolChoices
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()


def read_choices(server: ServerSettings, environ: Mapping[str, str], *, is_demo: bool) -> ReadChoices:
    """The choices out of the settings.

    Args:
        environ: where the variables are that headers of MCP servers name.
        is_demo: TOOL_SERVER=demo, which vLLM documents as Python, and a browser by Exa if there is a key.
    """
    problems: list[Problem] = []
    python, python_origin = _python(server, is_demo, problems)
    backend, origin = _backend(server, is_demo)
    opens, opens_origin = _opens(server, backend, origin)
    choices = ToolChoices(
        python,
        python_origin,
        backend,
        origin,
        _search_key(server, backend, problems),
        opens,
        opens_origin,
        _mcp_servers(server, environ, problems),
    )
    return ReadChoices(choices, tuple(problems), tuple(_warnings(server, choices, is_demo=is_demo)))


def _python(server: ServerSettings, is_demo: bool, problems: list[Problem]) -> tuple[Literal["on", "off", "auto"], str]:
    if server.python_tool is None:
        return ("on", DEMO_ORIGIN) if is_demo else ("off", "default")
    if is_demo and server.python_tool == "off":
        problems.append(Problem("PYTHON_TOOL", "off", f"on or auto with {DEMO_ORIGIN}, which turns the tool on"))
    return server.python_tool, "PYTHON_TOOL"


def _backend(server: ServerSettings, is_demo: bool) -> tuple[Backend | None, str]:
    if server.search_backend:
        return server.search_backend, "SEARCH_BACKEND"
    if is_demo and server.exa_api_key:
        return "exa", f"{DEMO_ORIGIN} and EXA_API_KEY"
    return None, "default"


def _opens(server: ServerSettings, backend: Backend | None, origin: str) -> tuple[bool, str]:
    if server.browser_open is not None:
        return server.browser_open, "BROWSER_OPEN"
    return (True, origin) if backend else (False, "default")


def _search_key(server: ServerSettings, backend: Backend | None, problems: list[Problem]) -> SecretStr | None:
    if backend == "searxng" and not server.search_url:
        problems.append(Problem("SEARCH_BACKEND", backend, "searxng with its address in SEARCH_URL"))
    if server.search_api_key and server.search_api_key_file:
        allowed = "one of SEARCH_API_KEY and SEARCH_API_KEY_FILE, not both"
        problems.append(Problem("SEARCH_API_KEY_FILE", str(server.search_api_key_file), allowed))
        return None
    variable, key = _first_key(server, backend, problems)
    if key and not _KEY.fullmatch(key.get_secret_value()):
        problems.append(Problem(variable, "", "printable ASCII characters without spaces, as a header carries them"))
    return key if backend else None


def _first_key(
    server: ServerSettings, backend: Backend | None, problems: list[Problem]
) -> tuple[str, SecretStr | None]:
    """The key that wins, and its variable."""
    if server.search_api_key:
        return "SEARCH_API_KEY", server.search_api_key
    if server.search_api_key_file:
        return "SEARCH_API_KEY_FILE", _key_of_file(server.search_api_key_file, problems)
    own = KEYS.get(backend or "")
    key: SecretStr | None = getattr(server, own) if own else None
    if own and not key:
        allowed = f"{backend} with its key in SEARCH_API_KEY, SEARCH_API_KEY_FILE or {own.upper()}"
        problems.append(Problem("SEARCH_BACKEND", str(backend), allowed))
    return (own or "").upper(), key


def _key_of_file(path: Path, problems: list[Problem]) -> SecretStr | None:
    try:
        return SecretStr(_file_text(path))
    except ValueError as error:
        problems.append(Problem("SEARCH_API_KEY_FILE", str(path), f"a file with the key alone ({error})"))
        return None


def _mcp_servers(server: ServerSettings, environ: Mapping[str, str], problems: list[Problem]) -> tuple[Server, ...]:
    path = server.mcp_servers
    if path is None:
        return ()
    try:
        return read_servers(_file_text(path), environ)
    except ServersFileError as error:
        problems.extend(Problem("MCP_SERVERS", str(path), f"a file of MCP servers; {each}") for each in error.problems)
    except ValueError as error:
        problems.append(Problem("MCP_SERVERS", str(path), f"a YAML file of MCP servers ({error})"))
    return ()


def _file_text(path: Path) -> str:
    """The text of a file with a secret, without blanks around it.

    Raises:
        ValueError: it cannot be read, or is empty. The text names the file.
    """
    try:
        text = path.expanduser().read_text().strip()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or 'it cannot be read'}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: it is not UTF-8") from None
    if not text:
        raise ValueError(f"{path}: it is empty")
    return text


_ONLY_WITH_BACKEND = ("search_api_key", "search_api_key_file", "search_url")
_ONLY_WITH_BROWSER = ("browser_allowed_domains", "browser_blocked_domains")


def _warnings(server: ServerSettings, choices: ToolChoices, *, is_demo: bool) -> Iterator[str]:
    for name, needed in _missing(choices):
        if getattr(server, name):
            yield f"{name.upper()} has no effect without {needed}"
    if is_demo and not choices.search:
        yield f"{DEMO_ORIGIN}: the tool browser is off without EXA_API_KEY or SEARCH_BACKEND"
    if server.tools_private_addresses:
        yield "TOOLS_PRIVATE_ADDRESSES: what the model opens may be at loopback and private addresses"


def _missing(choices: ToolChoices) -> Iterator[tuple[str, str]]:
    """The settings that have no effect here, and what each needs."""
    yield from ((name, f"SEARCH_BACKEND={backend}") for backend, name in KEYS.items() if choices.search != backend)
    if not choices.search:
        yield from ((name, "SEARCH_BACKEND") for name in _ONLY_WITH_BACKEND)
    if not (choices.search or choices.opens):
        yield from ((name, "SEARCH_BACKEND or BROWSER_OPEN") for name in _ONLY_WITH_BROWSER)
