"""How vLLM's application reports a failed generation: with the cause, in the shape of the API, never as a success.

vLLM 0.32 ends a stream that failed with an error event *and* `[DONE]`, cuts a broken stream of /v1/responses off
silently, reports a dead engine as a fault of this request ("see stack trace (above)"), and passes an aborted
generation off as an answer with `finish_reason: "abort"`. This module knows vLLM's objects by their methods alone;
engine/replacements.py, which imports vLLM, installs them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gptoss_bento.http.errors import BrokenStreamError, error_for

ENGINE_DIED = "The engine died while it worked on this request; the server ends. Try again."
ABORTED = "The server stopped before the answer was complete. Try again."


class AbortedGenerationError(Exception):
    """The engine aborted a generation, because the service stops."""

    def __init__(self) -> None:
        super().__init__(ABORTED)


def explanation(error: BaseException) -> tuple[HTTPStatus, str]:
    """Status and sentence for an error out of vLLM's engine.

    Its classes are recognised by name, because importing them takes seconds. A dead engine and a stop are 503: another
    try, here after the restart or elsewhere, will do.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    if "EngineDeadError" in names:
        return HTTPStatus.SERVICE_UNAVAILABLE, ENGINE_DIED
    if isinstance(error, AbortedGenerationError):
        return HTTPStatus.SERVICE_UNAVAILABLE, ABORTED
    if "GracefulHTTPError" in names:
        return HTTPStatus(error.http_status), str(error)  # type: ignore[attr-defined]
    if "GenerationError" in names:
        return HTTPStatus(error.status_code), str(error)  # type: ignore[attr-defined]
    return HTTPStatus.INTERNAL_SERVER_ERROR, str(error) or "The engine failed to answer this request."


def is_engine_failure(error: BaseException) -> bool:
    """Whether an error says something of the engine, not of the request."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"EngineDeadError", "EngineGenerateError", "AbortedGenerationError"})


async def engine_failure(request: Request, error: Exception) -> Response:
    """The answer to a request that has none yet; an exception handler of vLLM's application."""
    return error_for(request.scope["path"], *explanation(error))


def answering(serving: Any) -> Callable[..., Any]:
    """`create_messages` that answers a failure of the engine itself: its route makes a 500 of every exception."""
    original = serving.create_messages

    async def create_messages(*args: Any, **kwargs: Any) -> Any:
        try:
            return await original(*args, **kwargs)
        except Exception as error:
            if not is_engine_failure(error):
                raise
            status, message = explanation(error)
            return serving.create_error_response(message, err_type=status.phrase, status_code=status)

    return create_messages


def breaking(original: Callable[..., str]) -> Callable[..., str]:
    """Raises where vLLM makes its error event, since `[DONE]` would follow it. http/error_boundary.py sends it."""

    def raise_instead(message: str | Exception, *args: Any, **kwargs: Any) -> str:
        if isinstance(message, Exception) and is_engine_failure(message):
            raise BrokenStreamError(*explanation(message)) from message
        error = json.loads(original(message, *args, **kwargs))["error"]
        raise BrokenStreamError(HTTPStatus(error["code"]), error["message"])

    return raise_instead


def refusing_aborted(original: Callable[[str | None, str], None]) -> Callable[[str | None, str], None]:
    """The check of why a generation ended, which takes `abort` for a failure too."""

    def check(finish_reason: str | None, request_id: str) -> None:
        if finish_reason == "abort":
            raise AbortedGenerationError
        original(finish_reason, request_id)

    return check


def explaining(original: Callable[..., Any]) -> Callable[..., Any]:
    """The events of a streamed response; vLLM lets every error but its GenerationError escape without an event."""

    async def events(*args: Any, **kwargs: Any) -> Any:
        try:
            async for event in original(*args, **kwargs):
                yield event
        except BrokenStreamError:
            raise
        except Exception as error:
            raise BrokenStreamError(*explanation(error)) from error

    return events
