"""A request that has come before, by its Idempotency-Key: what its second time is answered.

The response of the first is its answer, as it is now. One whose client waited and that failed, or was cancelled because
its client left, has given none: the second request makes another.
"""

from __future__ import annotations

from dataclasses import replace

from starlette.responses import Response
from starlette.types import Scope

from gptoss_bento.http.idempotency import (
    REPLAYED,
    answer_is_gone,
    fingerprint,
    idempotency_key,
    refuse_other_request,
    still_answered,
)
from gptoss_bento.http.paths import RESPONSES
from gptoss_bento.responses.answers import json_answer, replayed_stream, stream
from gptoss_bento.responses.request import CreateRequest
from gptoss_bento.responses.stored_responses import Asker, StoredResponses
from gptoss_bento.state.idempotency import IdempotentUse
from gptoss_bento.state.response import ResponseStatus, StoredResponse

_UNANSWERED = (ResponseStatus.FAILED, ResponseStatus.CANCELLED)


def idempotent_use(scope: Scope, request: CreateRequest) -> IdempotentUse | None:
    """The Idempotency-Key of a request that is stored; of another, which leaves nothing to repeat, it has no effect.

    Raises:
        HttpRefusalError: it is no value that can be kept.
    """
    key = idempotency_key(scope)
    return IdempotentUse(key, fingerprint(RESPONSES, request.written)) if key and request.stores else None


async def earlier_answer(
    responses: StoredResponses, asker: Asker, request: CreateRequest
) -> tuple[Response | None, Asker]:
    """The answer of the first request with the same Idempotency-Key. None: this one makes a response.

    Returns the asker, too, who may use the key again where the first request had no answer.

    Raises:
        HttpRefusalError: the first was another request, is still answered, or its response is not kept any more.
        StoreUnavailableError: nothing has been generated.
    """
    if asker.use is None or (earlier := await responses.idempotency.find(asker.owner, asker.use.key)) is None:
        return None, asker
    refuse_other_request(earlier.fingerprint, asker.use.fingerprint)
    found = await responses.store.get(asker.owner, earlier.target)
    if found is None:
        raise answer_is_gone("The response")
    if not request.background and found.status in _UNANSWERED:
        return None, replace(asker, use=replace(asker.use, replaces=earlier.target))
    return _replayed(responses, asker.owner, request, found), asker


def _replayed(responses: StoredResponses, owner: str, request: CreateRequest, found: StoredResponse) -> Response:
    headers = {**REPLAYED}
    if request.keeps_events:
        return stream(responses, owner, found.id, 0, headers)
    if not request.background and not found.status.is_terminal:
        raise still_answered()
    if request.asked.get("stream"):
        return replayed_stream(responses, owner, found.id, 0, headers)
    return json_answer(found.body, headers)
