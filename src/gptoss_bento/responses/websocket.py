"""WebSocket mode of /v1/responses: who may connect, and how many. A connection itself is websocket_session.py's.

What is refused before the upgrade is answered by HTTP's status and body, as any request is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gptoss_bento.access.admission import Admission, websocket_rules
from gptoss_bento.access.authentication import key_of
from gptoss_bento.http.errors import HttpRefusalError, error_for
from gptoss_bento.http.paths import RESPONSES, destination
from gptoss_bento.responses.websocket_session import STOPPING, Limits, Session

LIFETIME_S = 3600.0
"""How long a connection may last, in the Open Responses specification."""

MEMORY_BYTES = 4 * 2**20
"""What a connection may remember: the whole context of GPT-OSS is some 600 kB of text."""


@dataclass(frozen=True)
class Allowed:
    """What connections are let in.

    Args:
        most: of this service at the same time.
        most_of_a_key: of one key; an open server counts as one.
        origins: the origins of browsers' pages that may connect, beside the server's own; "*" is any.
        endpoint_ids: the ids accepted under /v2/, empty for any.
    """

    most: int
    most_of_a_key: int
    origins: Collection[str] = ()
    endpoint_ids: Collection[str] = ()


class WebSocketMode:
    """ASGI application of all WebSocket connections of a worker, behind `Authentication`.

    Args:
        turns: answers a turn, as a request of HTTP.
        admission: counts connections, of all workers together.
        allowed: what is let in.
        limits: of one connection.
        why_not: why nothing new is taken now; None: it is.
    """

    def __init__(
        self,
        turns: ASGIApp,
        admission: Admission,
        allowed: Allowed,
        limits: Limits,
        why_not: Callable[[], HttpRefusalError | None] = lambda: None,
    ) -> None:
        self._turns = turns
        self._admission = admission
        self._allowed = allowed
        self._limits = limits
        self._why_not = why_not
        self._sessions: set[Session] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check(scope)
            allowed = self._allowed
            grant = self._admission.enter(websocket_rules(key_of(scope), allowed.most, allowed.most_of_a_key))
        except HttpRefusalError as error:
            await error_for(scope["path"], error.status, str(error), error.headers)(scope, receive, send)
            return
        session = Session(scope, receive, send, self._turns, self._limits)
        self._sessions.add(session)
        try:
            await session.run()
        finally:
            self._sessions.discard(session)
            grant.leave()

    def stop(self) -> None:
        """Closes all connections, each after the turn that runs."""
        for session in list(self._sessions):
            session.close(STOPPING)

    def _check(self, scope: Scope) -> None:
        to = destination(scope["path"], self._allowed.endpoint_ids)
        if to is None or to.path != RESPONSES:
            raise HttpRefusalError(HTTPStatus.NOT_FOUND, f"There is no WebSocket at {scope['path']}.")
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin and not self._is_allowed(origin, headers.get("host", "")):
            message = "Pages of this origin may not connect: CORS_ORIGINS has those that may."
            raise HttpRefusalError(HTTPStatus.FORBIDDEN, message)
        if why := self._why_not():
            raise why

    def _is_allowed(self, origin: str, host: str) -> bool:
        """Browsers let any page open a WebSocket, with no regard to CORS."""
        origins = self._allowed.origins
        return "*" in origins or origin in origins or _host_of(origin) == host


def _host_of(origin: str) -> str | None:
    """The host of an origin, with its port; None: it is none."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:  # a client may send any text
        return None
