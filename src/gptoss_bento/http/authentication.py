"""Keys: every route needs one except the probes, whoever serves the route (ours, BentoML's, vLLM's)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from gptoss_bento.http.errors import openai_error
from gptoss_bento.http.paths import destination, is_openai_path

PUBLIC_ROUTES = ("/livez", "/readyz", "/ping")
_CHALLENGE = {"WWW-Authenticate": "Bearer"}
_MESSAGE = "A valid key is needed: Authorization: Bearer KEY."


class Authentication:
    """ASGI middleware. Without keys it lets everybody pass.

    `Authorization: Bearer KEY` and `Authorization: KEY` are accepted, the scheme in any case (RunPod's examples use
    both), and `x-api-key: KEY` on Anthropic's routes. Missing, malformed and wrong keys get the same answer.

    Args:
        keys: the valid ones.
        public: paths that need none; by default the probes, which reveal nothing but a status.
    """

    def __init__(self, app: ASGIApp, keys: Collection[str] = (), public: Collection[str] = PUBLIC_ROUTES) -> None:
        self._app = app
        self._public = frozenset(public)
        self._digests = [_digest(key) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app if scope["type"] != "http" or self._may_pass(scope) else _refusal(scope["path"])
        await app(scope, receive, send)

    def _may_pass(self, scope: Scope) -> bool:
        if not self._digests or scope["path"] in self._public:
            return True
        given = _digest(presented_key(scope))
        # All are compared, each in constant time, so that the time tells nothing about any.
        return sum(hmac.compare_digest(given, digest) for digest in self._digests) > 0


def presented_key(scope: Scope) -> str:
    """The key a request brings, or an empty text, which is never a key."""
    headers = Headers(scope=scope)
    authorization = headers.get("authorization", "").strip()
    scheme, _, rest = authorization.partition(" ")
    if authorization:
        return rest.strip() if scheme.lower() == "bearer" else authorization
    return headers.get("x-api-key", "") if _is_anthropic(scope["path"]) else ""


def _is_anthropic(path: str) -> bool:
    to = destination(path)
    return to is not None and to.path.startswith("/v1/messages")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _refusal(path: str) -> JSONResponse:
    if is_openai_path(path):
        return openai_error(HTTPStatus.UNAUTHORIZED, _MESSAGE, headers=_CHALLENGE)
    return JSONResponse({"error": _MESSAGE}, HTTPStatus.UNAUTHORIZED, headers=_CHALLENGE)
