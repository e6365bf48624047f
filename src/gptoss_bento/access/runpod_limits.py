"""RunPod's published limits, for clients that will move there: RATE_LIMIT=1."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from gptoss_bento.access.admission import PLATFORM_RULES, Admission, RefusedError
from gptoss_bento.http.errors import error_for
from gptoss_bento.http.paths import is_openai_path

_OPERATION = re.compile(r"(?:/v2/[^/]*)?/(?P<operation>[a-z-]+)(?:/[^/]+)?")
_LIKE = {"generate": "runsync"}  # BentoML's API of the same jobs


class RunPodLimits:
    """ASGI middleware: calls of each operation in 10 s and at the same time, over all clients."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self._app = app
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        rule = PLATFORM_RULES.get(operation(scope["path"])) if scope["type"] == "http" else None
        if rule is None:
            await self._app(scope, receive, send)
            return
        try:
            grant = self._admission.enter([rule])
        except RefusedError as error:
            refusal = error_for(scope["path"], error.status, str(error), error.headers)
            await refusal(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            grant.leave()


def operation(path: str) -> str:
    """What RunPod would call this; empty for what it does not limit."""
    if is_openai_path(path):
        return "openai"
    match = _OPERATION.fullmatch(path)
    name = match["operation"] if match else ""
    return _LIKE.get(name, name)
