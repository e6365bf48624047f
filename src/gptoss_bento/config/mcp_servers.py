"""The MCP servers of the operator: the YAML file that `MCP_SERVERS` names. Text goes in, servers or problems come out.

One entry a server, under the label that requests name it by:

    weather:
      url: https://weather.example.org/mcp
      headers: {Authorization: "Bearer ${WEATHER_TOKEN}"}
      allowed_tools: [forecast]
      require_approval: never
      description: Weather of the next week.

In the values of headers `${NAME}` is a variable of the service, `${file:/run/secrets/weather}` the text of a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationError

from gptoss_bento.config import strict_yaml
from gptoss_bento.config.settings import is_unset
from gptoss_bento.config.tool_choices import Approval, McpServer
from gptoss_bento.config.tool_values import HttpAddress
from gptoss_bento.spelling import nearest

_LABEL = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_TAKEN = frozenset({"python", "browser", "container", "functions", "code_interpreter", "web_search_preview"})
"""Names by which models and requests mean tools that are no MCP servers."""
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token of RFC 9110
_HEADER_TEXT = re.compile(r"[\t -~]*")
_REFERENCE = re.compile(r"\$\{(file:)?([^}]*)\}")


class McpServersError(ValueError):
    """Something is wrong with the servers; `problems` names each entry, and shows no secret."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class _Entry(BaseModel):
    """One entry of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: HttpAddress
    headers: dict[StrictStr, StrictStr] = Field(default_factory=dict)
    allowed_tools: tuple[StrictStr, ...] | None = None
    require_approval: Approval | None = None
    description: StrictStr | None = None


_ALLOWED = {
    "url": "an address such as https://mcp.example.org/mcp, without a user in it",
    "headers": "texts under names of headers",
    "allowed_tools": "a list of names of tools",
    "require_approval": "always or never",
    "description": "a text",
}


def read_servers(text: str, environ: Mapping[str, str]) -> tuple[McpServer, ...]:
    """The servers of a YAML document.

    Args:
        environ: where the variables are that headers name.

    Raises:
        McpServersError: it is not YAML, has no entry, or entries are wrong.
    """
    try:
        content = strict_yaml.read(text)
    except strict_yaml.YamlError as error:
        raise McpServersError([str(error)]) from None
    if not isinstance(content, dict) or not content:
        raise McpServersError(["it must have one entry a server, `label: {url: …}`, and at least one"])
    problems: list[str] = []
    servers = [found for label, entry in content.items() if (found := _server(label, entry, environ, problems))]
    if problems:
        raise McpServersError(problems)
    return tuple(servers)


def _server(label: Any, entry: Any, environ: Mapping[str, str], problems: list[str]) -> McpServer | None:
    if wrong := _label_problem(label):
        problems.append(wrong)
        return None
    if not isinstance(entry, dict):
        problems.append(f"{label}: must have `url:` below it")
        return None
    try:
        read = _Entry.model_validate(entry)
    except ValidationError as error:
        problems.extend(f"{label}: {problem}" for problem in _wrong_fields(error))
        return None
    headers, wrong_headers = _headers(read.headers, environ)
    problems.extend(f"{label}: {problem}" for problem in wrong_headers)
    return McpServer(label, read.url, headers, read.allowed_tools, read.require_approval, read.description)


def _label_problem(label: Any) -> str | None:
    if not isinstance(label, str) or not _LABEL.fullmatch(label):
        return "a label must be of letters, digits, `_` and `-`, begin with a letter and have 64 at most"
    return f"{label}: this label means a tool that is no MCP server; take another" if label in _TAKEN else None


def _wrong_fields(error: ValidationError) -> Iterator[str]:
    """What pydantic found, without the values, once a field."""
    found = {str(each["loc"][0]): each["type"] for each in error.errors()}
    for name, kind in found.items():
        if kind == "extra_forbidden":
            yield _unknown(name)
        else:
            yield f"{name} is missing" if kind == "missing" else f"{name} must be {_ALLOWED[name]}"


def _unknown(name: str) -> str:
    close = nearest(name, _ALLOWED)
    return f"{name} is unknown; did you mean {close}?" if close else f"a field is unknown; known: {', '.join(_ALLOWED)}"


def _headers(texts: Mapping[str, str], environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The headers with their secrets, and what is wrong with them."""
    headers: dict[str, str] = {}
    problems: list[str] = []
    for name, text in texts.items():
        try:
            headers[_header_name(name)] = _with_secrets(text, environ)
        except ValueError as error:
            problems.append(f"headers: {error}")
    return headers, problems


def _header_name(name: str) -> str:
    if not _HEADER.fullmatch(name):
        raise ValueError("a name is none of a header")
    return name


def _with_secrets(text: str, environ: Mapping[str, str]) -> str:
    whole = _REFERENCE.sub(lambda found: _secret(found[2], environ, is_file=bool(found[1])), text)
    if not _HEADER_TEXT.fullmatch(whole):
        raise ValueError("a value must be of printable ASCII characters, in one line")
    return whole


def _secret(name: str, environ: Mapping[str, str], *, is_file: bool) -> str:
    if is_file:
        return file_text(Path(name))
    if is_unset(found := environ.get(name, "")):
        raise ValueError(f"${{{name}}} is not set")
    return found.strip()


def file_text(path: Path) -> str:
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
