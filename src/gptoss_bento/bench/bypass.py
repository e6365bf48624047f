"""The same server with and without its guards: requests that say so pass beside keys and admission.

Two servers are never quite the same: their memory's addresses and their other work are worth a percent or two, which
is what the guards may cost. So `bench guards` asks one server both ways. For the benchmark's own service only.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from gptoss_bento.access.authentication import Authentication

QUERY = "unguarded"
_QUERY = QUERY.encode()


def bypasses_guards(scope: Scope) -> bool:
    """Whether a request says so: in its query, since to find a header takes longer than what is measured."""
    return scope["type"] == "http" and bool(scope["query_string"] == _QUERY)


class BypassedAuthentication(Authentication):
    """Asks for a key only those that do not go beside it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if bypasses_guards(scope):
            await self._app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def bypassed(guarded: Callable[[], ASGIApp | None], bare: Callable[[], ASGIApp | None]) -> Callable[[], ASGIApp | None]:
    """Returns the application for a request, past the guards if it says so; None while there is no engine."""

    def app() -> ASGIApp | None:
        return answer if bare() else None

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        chosen = bare() if bypasses_guards(scope) else guarded()
        if chosen is None:
            raise RuntimeError("the engine ended")
        await chosen(scope, receive, send)

    return app
