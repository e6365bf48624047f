"""POST /v1/responses/compact: the model itself sums a conversation up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope

from gptoss_bento.access.authentication import key_of, owner_of
from gptoss_bento.http.body import with_body
from gptoss_bento.http.errors import FieldError
from gptoss_bento.http.json_body import json_bytes
from gptoss_bento.http.paths import RESPONSES
from gptoss_bento.responses.request import read_create
from gptoss_bento.responses.stored_responses import StoredResponses
from gptoss_bento.responses.summary import compacted, question, summary_request
from gptoss_bento.responses.tool_kinds import NO_KINDS
from gptoss_bento.strict_json import dumps, loads_stored


async def compact(
    responses: StoredResponses, app: ASGIApp, asked: Mapping[str, Any], scope: Scope, receive: Receive
) -> Response:
    """Answers a request. Nothing of it is stored.

    Args:
        responses: of this worker.
        app: vLLM's application.
        asked: the request's fields.
        scope: of the request.
        receive: of the client, who may leave.

    Raises:
        HttpRefusalError: what it names is not there, or there is no whole summary.
        StoreUnavailableError: nothing has been generated.
    """
    given = asked.get("input")
    if given is not None and not isinstance(given, str | list):
        raise FieldError("input", "input must be a text or a list of items.")
    request = read_create({**asked, "input": given or [], "store": False})
    items = await responses.whole_input(request, owner_of(scope))
    if not items:
        raise FieldError("input", "input or previous_response_id must give what is to be compacted.")
    key = key_of(scope)
    most = key.limits.max_tokens if key else None
    summary = replace(request, asked=summary_request(asked, most), kinds=NO_KINDS)
    body = json_bytes(summary.for_engine([*items, question()], streams=False))
    inner = {**scope, "path": RESPONSES, "raw_path": RESPONSES.encode()}
    status, answer = await _called(app, inner, with_body(body, receive))
    found = loads_stored(answer.decode()) if status == HTTPStatus.OK else None
    if not isinstance(found, dict):  # an error, or vLLM's `null` for a client that has left
        return Response(answer, status, media_type="application/json")
    return Response(dumps(compacted(found, items)), media_type="application/json")


async def _called(app: ASGIApp, scope: Scope, receive: Receive) -> tuple[int, bytes]:
    """The status and the body of an answer in one piece."""
    status, body = int(HTTPStatus.INTERNAL_SERVER_ERROR), bytearray()

    async def gather(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            body.extend(message.get("body", b""))

    await app(scope, receive, gather)
    return status, bytes(body)
