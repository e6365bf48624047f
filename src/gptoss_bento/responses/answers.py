"""The answers of this package's routes: an object as JSON, or a response's events."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response, StreamingResponse

from gptoss_bento.responses.stored_responses import StoredResponses


def json_answer(text: str, headers: Mapping[str, str] | None = None) -> Response:
    """200 with an object."""
    return Response(text, media_type="application/json", headers=headers)


def stream(
    responses: StoredResponses, owner: str, response_id: str, start: int, headers: Mapping[str, str] | None = None
) -> Response:
    """The events of a response from a position on."""
    events = responses.events(owner, response_id, start)
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


def replayed_stream(
    responses: StoredResponses, owner: str, response_id: str, start: int, headers: Mapping[str, str] | None = None
) -> Response:
    """The same of a response whose events are not stored: they are made again from its object."""
    events = responses.replayed(owner, response_id, start)
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)
