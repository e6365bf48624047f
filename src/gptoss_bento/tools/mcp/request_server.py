"""The MCP server that a tool of a request names: the operator's of this label, or one that the request brings. Pure.

Source: the tool `mcp` of OpenAI's Responses API. What this service cannot do is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from gptoss_bento.strict_json import shown, shown_name
from gptoss_bento.tools.mcp.checks import LABEL_RULE, header_problem, is_label, url_problem
from gptoss_bento.tools.mcp.server import Approval, ApprovalFilter, Server, ToolFilter

_MOST_DESCRIPTION = 2000
_MOST_HEADERS = 32
_MOST_NAMES = 1000
_FILTER = ("tool_names", "read_only")
_LISTS = ("always", "never")
_OF_OPENAI = ("connector_id", "tunnel_id")
_OPERATORS = ("server_url", "headers", "authorization")
_DIRECT = ["direct"]  # the only way of calling that there is here


class RequestServerError(ValueError):
    """A tool of the type `mcp` cannot be used.

    Attributes:
        field: as the client wrote it: `tools[0].server_url`.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field} {message}")
        self.field = field


def asked_server(
    tool: Mapping[str, Any],
    place: str,
    configured: Mapping[str, Server],
    *,
    may_bring: bool,
    allow_http: bool = False,
) -> Server:
    """The server of a tool, with what the request says of its tools and approvals.

    Args:
        tool: as the client sent it.
        place: of the tool in the request, for errors.
        configured: the operator's servers by label.
        may_bring: whether requests may bring servers of their own (MCP_REQUEST_SERVERS).
        allow_http: whether such a server may be without TLS: in closed networks (TOOLS_PRIVATE_ADDRESSES).

    Raises:
        RequestServerError: a field is wrong, or asks for what is not allowed here.
    """
    label = tool.get("server_label")
    if not is_label(label):
        raise RequestServerError(f"{place}.server_label", f"must {LABEL_RULE}, got {shown(label)}.")
    _refuse_foreign(tool, place)
    if (known := configured.get(label)) is not None:
        _refuse_changes(tool, place)
        server = known
    else:
        _refuse_unknown(tool, place, configured, may_bring=may_bring)
        server = _brought(tool, place, label, allow_http=allow_http)
    return replace(
        server,
        allowed_tools=(*server.allowed_tools, *_allowed(tool.get("allowed_tools"), f"{place}.allowed_tools")),
        require_approval=(
            *server.require_approval,
            *_approvals(tool.get("require_approval"), f"{place}.require_approval"),
        ),
        description=server.description or _description(tool, place),
    )


def _refuse_foreign(tool: Mapping[str, Any], place: str) -> None:
    """What OpenAI's own service has, and there is nothing for here."""
    for name in _OF_OPENAI:
        if tool.get(name) is not None:
            raise RequestServerError(f"{place}.{name}", "is OpenAI's own: bring the server's server_url.")
    if tool.get("defer_loading"):
        raise RequestServerError(f"{place}.defer_loading", "needs a search among tools, which there is not here.")
    if tool.get("allowed_callers") not in (None, [], _DIRECT):
        raise RequestServerError(f"{place}.allowed_callers", f'may have "direct" alone, got {shown(_callers(tool))}.')


def _callers(tool: Mapping[str, Any]) -> Any:
    return tool["allowed_callers"]


def _refuse_changes(tool: Mapping[str, Any], place: str) -> None:
    for name in _OPERATORS:
        if tool.get(name):
            label = shown(tool["server_label"])
            raise RequestServerError(f"{place}.{name}", f"is set by the operator for {label}: leave it out.")


def _refuse_unknown(tool: Mapping[str, Any], place: str, configured: Mapping[str, Server], *, may_bring: bool) -> None:
    if may_bring and tool.get("server_url") is None:
        raise RequestServerError(f"{place}.server_url", "is missing: the URL of the server's endpoint.")
    if may_bring:
        return
    known = f"known: {', '.join(sorted(configured))}" if configured else "the operator has set none (MCP_SERVERS)"
    raise RequestServerError(
        f"{place}.server_label",
        f"{shown(tool['server_label'])} is no server of this service; {known}. Requests may bring no servers of "
        "their own here (MCP_REQUEST_SERVERS).",
    )


def _brought(tool: Mapping[str, Any], place: str, label: str, *, allow_http: bool) -> Server:
    url = tool["server_url"]
    if not isinstance(url, str):
        raise RequestServerError(f"{place}.server_url", "must be a URL.")
    for wrong in url_problem(url, allow_http=allow_http, any_port=allow_http):
        raise RequestServerError(f"{place}.server_url", f"{wrong}.")
    return Server(label, url, headers=_headers(tool, place))


def _headers(tool: Mapping[str, Any], place: str) -> dict[str, str]:
    """The headers of a request, and its token among them. No value is in an error: it may be a secret."""
    where = f"{place}.headers"
    given = tool.get("headers") or {}
    if not isinstance(given, Mapping) or len(given) > _MOST_HEADERS:
        raise RequestServerError(where, f"must be an object of at most {_MOST_HEADERS} names with texts.")
    headers = dict(_checked_headers(given, where))
    token = tool.get("authorization")
    if token is None:
        return headers
    where = f"{place}.authorization"
    if any(name.lower() == "authorization" for name in headers):
        raise RequestServerError(where, "is there beside the header Authorization: leave one of them out.")
    if not isinstance(token, str) or not token.strip():
        raise RequestServerError(where, "must be an access token.")
    return headers | dict(_checked_headers({"Authorization": f"Bearer {token.strip()}"}, where))


def _checked_headers(given: Mapping[Any, Any], place: str) -> Iterator[tuple[str, str]]:
    for name, value in given.items():
        if not isinstance(value, str):
            raise RequestServerError(f"{place}.{shown_name(str(name))}", "must be a text.")
        for wrong in header_problem(name, value.strip()):
            where = (
                place if name == "Authorization" and place.endswith("authorization") else f"{place}.{shown_name(name)}"
            )
            raise RequestServerError(where, f"{wrong}.")
        yield name, value.strip()


def _description(tool: Mapping[str, Any], place: str) -> str | None:
    text = tool.get("server_description")
    if text is None:
        return None
    if not isinstance(text, str) or len(text) > _MOST_DESCRIPTION:
        where = f"{place}.server_description"
        raise RequestServerError(where, f"must be a text of at most {_MOST_DESCRIPTION} characters.")
    return text


def _allowed(said: Any, place: str) -> tuple[ToolFilter, ...]:
    if said is None:
        return ()
    return (ToolFilter(_names(said, place)) if isinstance(said, list) else _filter(said, place),)


def _filter(said: Any, place: str) -> ToolFilter:
    if not isinstance(said, Mapping) or not said.keys() <= set(_FILTER):
        right = '{"tool_names": [...], "read_only": true}'
        raise RequestServerError(place, f"must be a list of names, or {right}, got {shown(said)}.")
    read_only = said.get("read_only")
    if not isinstance(read_only, bool | None):
        raise RequestServerError(f"{place}.read_only", f"must be true or false, got {shown(read_only)}.")
    names = said.get("tool_names")
    return ToolFilter(None if names is None else _names(names, f"{place}.tool_names"), read_only)


def _names(said: Any, place: str) -> frozenset[str]:
    if not isinstance(said, list) or len(said) > _MOST_NAMES or not all(isinstance(name, str) for name in said):
        raise RequestServerError(place, f"must be a list of at most {_MOST_NAMES} names, got {shown(said)}.")
    return frozenset(said)


def _approvals(said: Any, place: str) -> tuple[Approval, ...]:
    if said is None:
        return ()
    if said == "always" or said == "never":
        return (said,)
    if not isinstance(said, Mapping) or not said.keys() <= set(_LISTS):
        right = '"always", "never", or {"always": {...}, "never": {...}}'
        raise RequestServerError(place, f"must be {right}, got {shown(said)}.")
    always, never = (None if said.get(name) is None else _filter(said[name], f"{place}.{name}") for name in _LISTS)
    return (ApprovalFilter(always, never),)
