"""What a request may say of an MCP server."""

from __future__ import annotations

from typing import Any

import pytest

from gptoss_bento.tools.mcp.request_server import RequestServerError, asked_server
from gptoss_bento.tools.mcp.server import ApprovalFilter, Server, ToolFilter

OWN = Server(
    "docs",
    "https://docs.test/mcp",
    headers={"Authorization": "Bearer of-the-operator"},
    allowed_tools=(ToolFilter(frozenset({"search", "fetch"})),),
    require_approval=("never",),
    is_operators=True,
)
URL = "https://theirs.test/mcp"
SECRET = "s3cret-of-the-client"


def asked(may_bring: bool = True, allow_http: bool = False, **fields: Any) -> Server:
    tool = {"type": "mcp", "server_label": "theirs", **fields}
    return asked_server(tool, "tools[0]", {"docs": OWN}, may_bring=may_bring, allow_http=allow_http)


def test_label_of_the_operator_is_its_server_with_what_the_request_allows_of_it() -> None:
    server = asked(may_bring=False, server_label="docs", allowed_tools=["search"], require_approval="always")

    assert server.url == OWN.url
    assert server.headers == OWN.headers
    assert server.is_operators
    assert server.allowed_tools == (*OWN.allowed_tools, ToolFilter(frozenset({"search"})))
    assert server.require_approval == ("never", "always")


def test_server_of_a_request_has_its_url_headers_and_token() -> None:
    server = asked(
        server_url=URL,
        headers={"X-Id": " 5 "},
        authorization=SECRET,
        server_description="Theirs.",
        allowed_tools={"tool_names": ["a"], "read_only": True},
        require_approval={"never": {"tool_names": ["a"]}},
    )

    assert server == Server(
        label="theirs",
        url=URL,
        headers={"X-Id": "5", "Authorization": f"Bearer {SECRET}"},
        description="Theirs.",
        allowed_tools=(ToolFilter(frozenset({"a"}), read_only=True),),
        require_approval=(ApprovalFilter(never=ToolFilter(frozenset({"a"}))),),
    )
    assert not server.is_private
    assert SECRET not in repr(server)


def test_values_that_are_null_or_openais_defaults_say_nothing() -> None:
    server = asked(
        server_url=URL,
        headers=None,
        authorization=None,
        allowed_tools=None,
        require_approval=None,
        connector_id=None,
        defer_loading=False,
        allowed_callers=["direct"],
    )

    assert server == Server("theirs", URL)


def test_server_without_tls_is_for_closed_networks() -> None:
    assert asked(server_url="http://theirs.test/", allow_http=True).url == "http://theirs.test/"


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"server_label": None}, "server_label", "must begin with a letter"),
        ({"server_label": "a.b"}, "server_label", "must begin with a letter, have letters, digits, `_` and `-` alone"),
        ({"server_label": "functions"}, "server_label", "must begin with a letter, have letters"),
        ({"server_label": "System"}, "server_label", "must begin with a letter, have letters"),
        ({}, "server_url", "is missing: the URL of the server's endpoint."),
        ({"server_url": 5}, "server_url", "must be a URL."),
        ({"server_url": "http://theirs.test/"}, "server_url", "must begin with https:// and a host."),
        ({"server_url": f"https://u:{SECRET}@theirs.test/"}, "server_url", "must have no user and password"),
        ({"server_url": "https://a.test:25/"}, "server_url", "must have one of the ports 80, 443 or one from 1024 on."),
        ({"server_url": "file:///etc/passwd"}, "server_url", "must begin with https:// and a host."),
        ({"server_url": "https://a.test/\r\nHost: b"}, "server_url", "must be at most 2048 printable characters"),
        ({"connector_id": "connector_gmail"}, "connector_id", "is OpenAI's own: bring the server's server_url."),
        ({"tunnel_id": "t"}, "tunnel_id", "is OpenAI's own: bring the server's server_url."),
        ({"defer_loading": True}, "defer_loading", "needs a search among tools"),
        ({"allowed_callers": ["programmatic"]}, "allowed_callers", 'may have "direct" alone, got ["programmatic"].'),
        ({"server_url": URL, "headers": [SECRET]}, "headers", "must be an object of at most 32 names with texts."),
        ({"server_url": URL, "headers": {"X": 5}}, "headers.X", "must be a text."),
        ({"server_url": URL, "headers": {"X": f"{SECRET}\r\nY: z"}}, "headers.X", "must have a value of at most 8192"),
        ({"server_url": URL, "headers": {"Host": SECRET}}, "headers.Host", "is a header that the client sets itself"),
        ({"server_url": URL, "authorization": ""}, "authorization", "must be an access token."),
        ({"server_url": URL, "authorization": f"{SECRET}\n\nx"}, "authorization", "must have a value of at most 8192"),
        (
            {"server_url": URL, "authorization": SECRET, "headers": {"AUTHORIZATION": SECRET}},
            "authorization",
            "is there beside the header Authorization: leave one of them out.",
        ),
        ({"server_url": URL, "server_description": "x" * 2001}, "server_description", "must be a text of at most 2000"),
        ({"server_url": URL, "allowed_tools": "a"}, "allowed_tools", "must be a list of names"),
        ({"server_url": URL, "allowed_tools": [1]}, "allowed_tools", "must be a list of at most 1000 names, got [1]."),
        (
            {"server_url": URL, "allowed_tools": {"read_only": "yes"}},
            "allowed_tools.read_only",
            "must be true or false",
        ),
        ({"server_url": URL, "require_approval": "no"}, "require_approval", 'must be "always", "never", or'),
        ({"server_url": URL, "require_approval": {"some": {}}}, "require_approval", 'must be "always", "never", or'),
        ({"server_url": URL, "require_approval": {"never": []}}, "require_approval.never", "must be a list of names"),
        ({"server_label": "docs", "server_url": URL}, "server_url", 'is set by the operator for "docs": leave it out.'),
        (
            {"server_label": "docs", "headers": {"a": "b"}},
            "headers",
            'is set by the operator for "docs": leave it out.',
        ),
        ({"server_label": "docs", "authorization": "x"}, "authorization", "is set by the operator"),
    ],
)
def test_field_that_cannot_be_done_is_refused_by_name(fields: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(RequestServerError) as raised:
        asked(**fields)

    assert raised.value.field == f"tools[0].{field}"
    assert str(raised.value).startswith(f"tools[0].{field} {message}")
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("fields", [{}, {"server_url": URL}])
def test_server_of_a_request_is_refused_where_the_operator_allows_none(fields: dict[str, Any]) -> None:
    with pytest.raises(RequestServerError, match=r'"theirs" is no server of this service; known: docs') as raised:
        asked(may_bring=False, **fields)

    assert raised.value.field == "tools[0].server_label"
