"""Keys: every route needs one, ours, BentoML's and vLLM's alike; only the probes do not."""

from __future__ import annotations

from collections.abc import Collection
from http import HTTPStatus

from starlette.types import ASGIApp, Receive, Scope, Send

from gptoss_bento.access.key_store import KeyStore
from gptoss_bento.config.api_keys import Key
from gptoss_bento.http.errors import error_for
from gptoss_bento.http.paths import PROBES, is_anthropic_path

_KEY = "gptoss_bento.key"
OWNER = "gptoss_bento.owner"
"""Where the scope of a job's request has the owner of the key that submitted the job."""
_DENIAL = "websocket.http.response"  # a server that can answer a handshake by a response of HTTP
_POLICY_VIOLATION = 1008  # RFC 6455; before the handshake the server turns it into 403
_CHALLENGE = {"WWW-Authenticate": "Bearer"}
_MESSAGE = "A valid key is needed: Authorization: Bearer KEY."


class Authentication:
    """ASGI middleware. With an open key store it lets every request pass.

    `Authorization: Bearer KEY` and `Authorization: KEY` are accepted, the scheme in any case (RunPod's examples use
    both), and `x-api-key: KEY` on Anthropic's routes. Missing, malformed and wrong keys get the same answer. The
    application finds the key in the scope: `key_of`.

    Args:
        keys: the valid ones.
        public: paths that need none; by default the probes, which reveal nothing but a status.
    """

    def __init__(self, app: ASGIApp, keys: KeyStore, public: Collection[str] = PROBES) -> None:
        self._app = app
        self._keys = keys
        self._public = frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._keys.is_open or scope["path"] in self._public:
            await self._app(scope, receive, send)
        elif key := self._keys.find(presented_key(scope)):
            scope[_KEY] = key
            await self._app(scope, receive, send)
        elif scope["type"] == "http" or _DENIAL in scope.get("extensions", {}):
            refusal = error_for(scope["path"], HTTPStatus.UNAUTHORIZED, _MESSAGE, _CHALLENGE)
            await refusal(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})


def key_of(scope: Scope) -> Key | None:
    """The key that a request came with; None on an open server and on public paths."""
    key = scope.get(_KEY)
    return key if isinstance(key, Key) else None


def with_key(scope: Scope, key: Key | None) -> Scope:
    """The scope of a request that this process makes for a key."""
    return {**scope, _KEY: key}


def owner_of(scope: Scope) -> str:
    """Whose a request is: the owner of its key, or of its job; empty on an open server."""
    key = key_of(scope)
    return key.owner if key else str(scope.get(OWNER) or "")


def is_of_job(scope: Scope) -> bool:
    """Whether a job makes this request, in this process."""
    return OWNER in scope


def presented_key(scope: Scope) -> str:
    """The key a request brings, or an empty text, which is never a key."""
    authorization = _header(scope, b"authorization").strip()
    scheme, _, rest = authorization.partition(" ")
    if authorization:
        return rest.strip() if scheme.lower() == "bearer" else authorization
    return _header(scope, b"x-api-key") if is_anthropic_path(scope["path"]) else ""


def _header(scope: Scope, wanted: bytes) -> str:
    for name, value in scope["headers"]:
        if name == wanted:
            return str(value, "latin-1")
    return ""
