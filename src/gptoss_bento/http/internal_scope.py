"""The scope of a request that this process makes itself, to vLLM's application. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from starlette.types import Scope


def internal_scope(method: str, path: str, query: str = "", headers: Sequence[tuple[bytes, bytes]] = ()) -> Scope:
    """A scope as the HTTP server makes them, without a client's headers.

    Args:
        method: of the request.
        path: of vLLM's application.
        query: what follows the question mark.
        headers: beside those that each request has.
    """
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},  # 2.3: a stream listens for the client's disconnect
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": quote(path).encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(b"host", b"engine"), (b"content-type", b"application/json"), *headers],
        "client": ("127.0.0.1", 0),
        "server": ("engine", 80),
        "state": {},
    }
