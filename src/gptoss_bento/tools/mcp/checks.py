"""What a label, a URL and a header of an MCP server may be, of the operator or of a request. Pure.

A problem is the rest of a sentence that begins with the place, and shows no value: any may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeGuard
from urllib.parse import urlsplit

_TAKEN = ("assistant", "browser", "container", "developer", "functions", "python", "system", "tool", "user")
LABEL_RULE = (
    "begin with a letter, have letters, digits, `_` and `-` alone, 64 at most, and be none of Harmony's own names: "
    + ", ".join(_TAKEN)
)
"""Source: OpenAI's API, which names tools by it. GPT-OSS reads it before the dot of `label.tool`."""

_LABEL = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")  # RFC 9110
_VALUE = re.compile(r"[\x20-\x7e\t]*")
_WEB_PORTS, _FIRST_FREE_PORT = (80, 443), 1024
_MOST_VALUE, _MOST_URL = 8192, 2048
_OURS = frozenset(
    [
        *("accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect"),
        *("host", "last-event-id", "mcp-protocol-version", "mcp-session-id", "te", "trailer", "transfer-encoding"),
        *("keep-alive", "proxy-connection", "upgrade"),
    ]
)
"""Headers that the client of MCP and HTTP set themselves."""


def is_label(label: Any) -> TypeGuard[str]:
    """Whether it is a label by LABEL_RULE."""
    return isinstance(label, str) and _LABEL.fullmatch(label) is not None and label.lower() not in _TAKEN


def url_problem(url: str, *, allow_http: bool, any_port: bool) -> Iterator[str]:
    """What is wrong with the URL of an endpoint.

    Args:
        allow_http: whether it may be without TLS.
        any_port: whether its port may be one of other protocols, below 1024.
    """
    schemes = ("https", "http") if allow_http else ("https",)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        yield "is no URL"
        return
    if len(url) > _MOST_URL or not url.isascii() or not url.isprintable() or " " in url:
        yield f"must be at most {_MOST_URL} printable characters of ASCII, without spaces"
    elif parts.scheme not in schemes or not host or port == 0:
        yield f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)} and a host"
    elif "@" in parts.netloc:
        yield "must have no user and password before the host; use a header"
    elif parts.fragment:
        yield "must have no fragment (#...)"
    elif port is not None and not any_port and port < _FIRST_FREE_PORT and port not in _WEB_PORTS:
        yield f"must have one of the ports {', '.join(map(str, _WEB_PORTS))} or one from {_FIRST_FREE_PORT} on"


def header_problem(name: str, value: str) -> Iterator[str]:
    """What is wrong with a header."""
    if not _TOKEN.fullmatch(name):
        yield "has a name that no header can have"
    elif name.lower() in _OURS:
        yield "is a header that the client sets itself: leave it out"
    elif len(value) > _MOST_VALUE or not _VALUE.fullmatch(value):
        yield f"must have a value of at most {_MOST_VALUE} printable characters of ASCII"
