"""`MCP_SERVERS`: a YAML file of the MCP servers that requests may name by their labels.

Text goes in; servers, or all problems together, come out. A problem shows no value that could be a secret: none of a
header, of a variable, or of a file. docs/configuration.md has an example.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, ValidationError

from gptoss_bento.spelling import nearest
from gptoss_bento.strict_json import shown, shown_name
from gptoss_bento.tools.mcp.checks import LABEL_RULE, header_problem, is_label, url_problem
from gptoss_bento.tools.mcp.server import Approval, ApprovalFilter, Server, ToolFilter, Transport

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRET_FIELDS = ("headers", "url")
_Names = Annotated[list[StrictStr], Field(max_length=1000)]


class ServersFileError(ValueError):
    """Something is wrong with the file; `problems` names each place and what would be right."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class _FromVariable(_Part):
    """A value that a variable of the environment has."""

    from_env: StrictStr


class _FromFile(_Part):
    """A value that is the only line of a file, such as a mounted secret."""

    from_file: StrictStr


class _Filter(_Part):
    tool_names: _Names | None = None
    read_only: StrictBool | None = None

    def tools(self) -> ToolFilter:
        return ToolFilter(None if self.tool_names is None else frozenset(self.tool_names), self.read_only)


class _Approvals(_Part):
    always: _Filter | None = None
    never: _Filter | None = None


class _Entry(_Part):
    """One server of the file."""

    url: StrictStr
    transport: Transport = Transport.AUTO
    headers: dict[StrictStr, StrictStr | _FromVariable | _FromFile] = Field(default_factory=dict)
    allowed_tools: _Names | _Filter | None = None
    require_approval: Literal["always", "never"] | _Approvals | None = None
    description: Annotated[StrictStr, Field(max_length=2000)] | None = None
    private: StrictBool = False


def read_servers(text: str, environ: Mapping[str, str]) -> tuple[Server, ...]:
    """The servers of a file, in its order.

    Args:
        text: YAML, a mapping from labels to servers.
        environ: the variables that the file may name.

    Raises:
        ServersFileError: it is not YAML, an entry is wrong, or a variable or file that it names cannot be read.
    """
    problems: list[str] = []
    servers = [
        server
        for label, fields in _entries(text).items()
        if (server := _server(label, fields, environ, problems)) is not None
    ]
    if problems:
        raise ServersFileError(problems)
    return tuple(servers)


def _entries(text: str) -> Mapping[Any, Any]:
    try:
        content = yaml.load(text, _OnceEach)  # noqa: S506  # it is a safe loader
    except yaml.MarkedYAMLError as error:  # its own text shows a piece of the file
        line = f" at line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ServersFileError([f"it is not YAML{line}: {error.problem}"]) from None
    except yaml.YAMLError:
        raise ServersFileError(["it is not YAML"]) from None
    if not isinstance(content, dict) or not content:
        raise ServersFileError(["it must have one entry for each server: a label, and below it at least `url:`"])
    return content


class _OnceEach(yaml.SafeLoader):
    """YAML lets the last of two servers of one label win, unseen."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [child.value for child, _ in node.value if isinstance(child, yaml.ScalarNode)]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise yaml.MarkedYAMLError(problem=f"{shown_name(twice)} is there twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def _server(label: Any, fields: Any, environ: Mapping[str, str], problems: list[str]) -> Server | None:
    if not is_label(label):
        problems.append(f"{shown(label)}: a label must {LABEL_RULE}")
        return None
    if not isinstance(fields, dict):
        problems.append(f"{label}: must have `url:` and other fields below it")
        return None
    try:
        entry = _Entry.model_validate(fields)
    except ValidationError as error:
        problems.extend(f"{label}.{problem}" for problem in _wrong_fields(error, fields))
        return None
    return _resolved(label, entry, environ, problems)


def _resolved(label: str, entry: _Entry, environ: Mapping[str, str], problems: list[str]) -> Server | None:
    """The server with the values of variables and files in it."""
    found: list[str] = []
    url = _text(f"{label}.url", entry.url, environ, found)
    headers = {
        name: _text(f"{label}.headers.{shown_name(name)}", value, environ, found)
        for name, value in entry.headers.items()
    }
    if not found:
        found += [f"{label}.url {wrong}" for wrong in url_problem(url, allow_http=True, any_port=True)]
        found += [
            f"{label}.headers.{shown_name(name)} {wrong}"
            for name, value in headers.items()
            for wrong in header_problem(name, value)
        ]
    problems.extend(found)
    if found:
        return None
    return Server(
        label=label,
        url=url,
        transport=entry.transport,
        headers=headers,
        allowed_tools=_allowed(entry.allowed_tools),
        require_approval=_approvals(entry.require_approval),
        description=entry.description,
        is_private=entry.private,
        is_operators=True,
    )


def _allowed(said: list[str] | _Filter | None) -> tuple[ToolFilter, ...]:
    if said is None:
        return ()
    return (said.tools() if isinstance(said, _Filter) else ToolFilter(frozenset(said)),)


def _approvals(said: Literal["always", "never"] | _Approvals | None) -> tuple[Approval, ...]:
    if said is None or isinstance(said, str):
        return (said,) if said else ()
    always, never = (part.tools() if part else None for part in (said.always, said.never))
    return (ApprovalFilter(always, never),)


def _text(place: str, value: str | _FromVariable | _FromFile, environ: Mapping[str, str], problems: list[str]) -> str:
    """A value of the file, of a variable or of another file; problems are added to the list."""
    if isinstance(value, _FromFile):
        return _content(place, value.from_file, problems)
    names = [value.from_env] if isinstance(value, _FromVariable) else _VARIABLE.findall(value)
    if missing := [name for name in names if not environ.get(name, "").strip()]:
        problems.append(f"{place}: the variable {shown_name(missing[0])} is not set")
        return ""
    if isinstance(value, _FromVariable):
        return environ[value.from_env].strip()
    return _VARIABLE.sub(lambda match: environ[match[1]].strip(), value)


def _content(place: str, path: str, problems: list[str]) -> str:
    try:
        content = Path(path).expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        problems.append(f"{place}: the file {shown_name(path)} cannot be read: {reason}")
        return ""
    if not content:
        problems.append(f"{place}: the file {shown_name(path)} is empty")
    return content


def _wrong_fields(error: ValidationError, fields: Mapping[Any, Any]) -> Iterator[str]:
    """Each wrong field once; of a union pydantic reports every variant."""
    seen: set[str] = set()
    for each in error.errors(include_url=False, include_input=False, include_context=False):
        name = str(each["loc"][0])
        if name not in seen:
            seen.add(name)
            yield _wrong_field(name, each["type"], fields.get(name))


def _wrong_field(name: str, kind: str, value: Any) -> str:
    if name not in _RIGHT:
        close = nearest(name, _RIGHT)
        return f"{shown_name(name)}: there is no such field" + (
            f"; did you mean {close}?" if close else f"; known: {', '.join(_RIGHT)}"
        )
    if kind == "missing":
        return f"{name} is missing: {_RIGHT[name]}"
    got = "" if name in _SECRET_FIELDS else f", got {shown(value)}"
    return f"{name} must be {_RIGHT[name]}{got}"


_RIGHT = {
    "url": "the http(s) URL of the server's endpoint",
    "transport": "auto, http or sse",
    "headers": "names with values: a text, perhaps with ${VARIABLE} in it, {from_env: VARIABLE} or {from_file: PATH}",
    "allowed_tools": "a list of names, or {tool_names: [...], read_only: true}",
    "require_approval": "always, never, or {always: {tool_names: [...]}, never: {tool_names: [...]}}",
    "description": "a text of at most 2000 characters",
    "private": "true or false",
}
"""The fields of an entry, and what is right for each."""
