"""The routes below /v1/batches: HTTP, nothing else. All other paths go on."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gptoss_bento.access.authentication import key_of, owner_of
from gptoss_bento.access.stored_limits import limits_text
from gptoss_bento.batches.batch_request import WINDOW, WINDOW_S, read_batch
from gptoss_bento.batches.batch_runner import BatchRunner
from gptoss_bento.batches.file_routes import list_object
from gptoss_bento.batches.refusals import answered
from gptoss_bento.batches.stored_files import unknown_file
from gptoss_bento.http.errors import RETRY, HttpRefusalError
from gptoss_bento.http.idempotency import (
    REPLAYED,
    answer_is_gone,
    fingerprint,
    idempotency_key,
    refuse_other_request,
)
from gptoss_bento.http.json_body import json_object
from gptoss_bento.http.paths import BATCHES
from gptoss_bento.http.query import number_in, query_of
from gptoss_bento.state.batch import NewBatch, StoredBatch
from gptoss_bento.state.batch_store import BatchesFullError, BatchStore, UnknownBatchError
from gptoss_bento.state.file_store import UnknownFileError
from gptoss_bento.state.idempotency import IdempotencyStore, IdempotentUse, KeyUsedError
from gptoss_bento.strict_json import loads_stored, shown

_BELOW = f"{BATCHES}/"
_DEFAULT_PAGE, _LARGEST_PAGE = 20, 100


class BatchesApi:
    """ASGI application in front of another.

    Args:
        app: the other.
        store: of the batches.
        uses: of values of Idempotency-Key, in the same database.
        runner: of this worker.
        most: batches of a key that have not ended.
        ttl_s: seconds that batches and their files are kept.
    """

    def __init__(
        self, app: ASGIApp, store: BatchStore, uses: IdempotencyStore, runner: BatchRunner, most: int, ttl_s: int
    ) -> None:
        self._app = app
        self._store = store
        self._uses = uses
        self._runner = runner
        self._most = most
        self._ttl_s = ttl_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        is_ours = scope["type"] == "http" and scope["method"] != "OPTIONS"
        if not is_ours or not (path == BATCHES or path.startswith(_BELOW)):
            await self._app(scope, receive, send)
            return
        answer = await answered(self._answer(Request(scope, receive)))
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path, owner = request.scope["path"], owner_of(request.scope)
        if path == BATCHES:
            return await (self._create if request.method == "POST" else self._list)(request, owner)
        batch_id, _, rest = path.removeprefix(_BELOW).partition("/")
        try:
            if rest == "cancel":
                return await self._cancel(owner, batch_id)
            return JSONResponse(batch_object(await self._store.get(owner, batch_id)))
        except UnknownBatchError:
            raise _unknown(batch_id, "batch_id") from None

    async def _create(self, request: Request, owner: str) -> Response:
        fields = json_object(await request.body())
        value = idempotency_key(request.scope)
        use = IdempotentUse(value, fingerprint(BATCHES, fields)) if value else None
        if use and (earlier := await self._earlier(owner, use)):
            return JSONResponse(batch_object(earlier), headers=REPLAYED)
        try:
            batch = await self._made(request, owner, fields, use)
        except KeyUsedError:  # a moment ago
            return await self._create(request, owner)
        self._runner.wake()
        return JSONResponse(batch_object(batch))

    async def _earlier(self, owner: str, use: IdempotentUse) -> StoredBatch | None:
        """The batch of the first request with this Idempotency-Key; None: this is the first."""
        if (found := await self._uses.find(owner, use.key)) is None:
            return None
        refuse_other_request(found.fingerprint, use.fingerprint)
        try:
            return await self._store.get(owner, found.target)
        except UnknownBatchError:
            raise answer_is_gone("The batch") from None

    async def _made(
        self, request: Request, owner: str, fields: Mapping[str, Any], use: IdempotentUse | None
    ) -> StoredBatch:
        asked = read_batch(fields, self._ttl_s)
        new = NewBatch(
            owner=owner,
            id=f"batch_{uuid.uuid4().hex[:24]}",
            endpoint=asked.endpoint,
            input_file_id=asked.input_file_id,
            key_limits=limits_text(key_of(request.scope)),
            metadata=asked.metadata,
            window_s=WINDOW_S,
            output_ttl_s=asked.output_ttl_s,
            ttl_s=self._ttl_s,
        )
        try:
            return await self._store.create(new, self._most, use)
        except UnknownFileError:
            raise unknown_file(asked.input_file_id, "input_file_id") from None
        except BatchesFullError as error:
            raise HttpRefusalError(HTTPStatus.TOO_MANY_REQUESTS, f"{error} Try again later.", RETRY) from None

    async def _list(self, request: Request, owner: str) -> Response:
        query = query_of(request.scope)
        after = query.get("after")
        try:
            page = await self._store.page(owner, number_in(query, "limit", _DEFAULT_PAGE, 1, _LARGEST_PAGE), after)
        except UnknownBatchError:
            raise _unknown(str(after), "after") from None
        return JSONResponse(list_object([batch_object(batch) for batch in page.batches], has_more=page.has_more))

    async def _cancel(self, owner: str, batch_id: str) -> Response:
        batch, was_unfinished = await self._store.cancel(owner, batch_id)
        if not was_unfinished:
            message = f"Batch {batch_id} cannot be cancelled: it is {batch.status}."
            raise HttpRefusalError(HTTPStatus.BAD_REQUEST, message, param="batch_id")
        return JSONResponse(batch_object(batch))


_COPIED = (
    "id",
    "endpoint",
    "model",
    "input_file_id",
    "status",
    "output_file_id",
    "error_file_id",
    "created_at",
    "in_progress_at",
    "expires_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)


def batch_object(batch: StoredBatch) -> dict[str, Any]:
    """A batch as OpenAI writes it."""
    return {
        **{name: getattr(batch, name) for name in _COPIED},
        "object": "batch",
        "completion_window": WINDOW,
        "errors": _parsed(batch.errors),
        "metadata": _parsed(batch.metadata),
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "usage": _parsed(batch.usage),
    }


def _parsed(text: str | None) -> Any:
    return loads_stored(text) if text else None


def _unknown(batch_id: str, param: str) -> HttpRefusalError:
    return HttpRefusalError(HTTPStatus.NOT_FOUND, f"There is no batch {shown(batch_id)}.", param=param)
