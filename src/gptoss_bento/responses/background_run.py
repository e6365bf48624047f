"""A response without its client: it is generated in a task, and events for a stream are in the store as they come."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

from starlette.types import ASGIApp, Message, Scope

from gptoss_bento.background.store_retries import until_available
from gptoss_bento.concurrency import wait_or_timeout
from gptoss_bento.http.errors import BrokenStreamError
from gptoss_bento.responses.event_stream import EventStream, data_of
from gptoss_bento.responses.following import Events
from gptoss_bento.responses.objects import whole
from gptoss_bento.responses.record import MISTAKE, Record
from gptoss_bento.responses.request import CreateRequest
from gptoss_bento.state.response_queue import ResponseQueue
from gptoss_bento.state.response_store import ResponseStore
from gptoss_bento.strict_json import dumps

logger = logging.getLogger(__name__)

_WRITE_INTERVAL_S = 0.1  # between two writes of events
_CHECK_INTERVAL_S = 0.5  # how soon a response is stopped that another worker has cancelled
_ABORT_GRACE_S = 2.0
_NOTHING_SAID = "The engine ended without an answer."


class RefusedRequest(Exception):  # noqa: N818  # no error of this server
    """vLLM has refused the request; the messages of its answer."""

    def __init__(self, messages: list[Message]) -> None:
        super().__init__()
        self.messages = messages


@dataclass(frozen=True)
class Stores:
    """What a run writes to, and whom it notifies.

    Args:
        responses: the store of the responses.
        queue: of those in the background.
        changed: is called after each write, with the events that it wrote; None: there may be more.
        is_stopping: whether this worker stops.
        is_draining: whether it was asked to.
    """

    responses: ResponseStore
    queue: ResponseQueue
    changed: Callable[[Events | None], None]
    is_stopping: Callable[[], bool]
    is_draining: Callable[[], bool]


class BackgroundRun:
    """One call of vLLM's application that no client waits for.

    Args:
        request: that it answers.
        first: the object of the queued response.
        record: of the response.
        stores: that it writes to.
        is_accepted: whether a client has the id already: what vLLM refuses then is a failed response.
    """

    def __init__(
        self,
        request: CreateRequest,
        first: Mapping[str, Any],
        record: Record,
        stores: Stores,
        *,
        is_accepted: bool = False,
    ) -> None:
        self._request = request
        self._first = first
        self._record = record
        self._stores = stores
        self._store = stores.responses
        self._changed = stores.changed
        self._has_client = is_accepted
        self._stream = EventStream(self._whole, request.kinds, request.returned)
        self._events: list[str] = []
        self._written = 0
        self._has_started = False
        self._refusal: list[Message] = []
        self._is_accepted = False
        self._over = asyncio.Event()
        self._to_write = asyncio.Event()
        self._stop = asyncio.Event()
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Is done when vLLM has accepted the request; has RefusedRequest if it has not."""

    def _whole(self, made: Mapping[str, Any]) -> dict[str, Any]:
        """It was created when it was queued, however often it runs."""
        return {**whole(made, self._request, int(time.time())), "created_at": self._first["created_at"]}

    def stop(self) -> None:
        """The response was cancelled: its generation is aborted."""
        self._stop.set()

    async def run(self, app: ASGIApp, scope: Scope, body: bytes) -> None:
        """Generates the response, and ends its record."""
        call = asyncio.create_task(self._call(app, scope, body))
        writing = asyncio.create_task(self._write())
        writing.add_done_callback(lambda _: self.stop())  # before its time only after an error
        try:
            await self._ended(call)
        finally:
            was_stopped = self._stop.is_set()
            error = None if was_stopped else _error_of(call)  # what was stopped may end as it likes
            self._over.set()  # not cancelled: a write that was under way would be done again
            self._to_write.set()
            await asyncio.wait((writing,))
            try:
                own = _error_of(writing)
                if was_stopped or own or not await self._requeued(error):
                    await self._finish(error or own)
            finally:
                self._settle()
                self._changed(None)

    async def _call(self, app: ASGIApp, scope: Scope, body: bytes) -> None:
        await app(scope, self._receive(body), self._send)

    async def _ended(self, call: asyncio.Task[None]) -> None:
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((call, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not call.done():
                await asyncio.wait((call,), timeout=_ABORT_GRACE_S)
        finally:
            stopping.cancel()
            call.cancel()
            await asyncio.wait((call,))

    async def _finish(self, error: BaseException | None) -> None:
        if self._refusal and not self._has_client:
            await self._record.discard()
            return
        if self._stream.final is None:
            self._stream.started = self._stream.started or dict(self._first)
            self._keep(self._stream.failed(self._fault(error)))
        if self._stream.final is not None:
            await self._record.finish(self._stream.final, self._events)

    async def _requeued(self, error: BaseException | None) -> bool:
        """Whether the response is generated again, because its worker or its engine ends.

        A shutdown does not count as the one further run that it may have.
        """
        is_refused = self._refusal and not self._has_client
        if is_refused or self._stream.final is not None or not self._is_interrupted(error):
            return False
        counts, record = not self._stores.is_draining(), self._record
        requeue = partial(self._stores.queue.requeue, record.row, record.attempt, counts=counts)
        return await until_available(requeue)

    def _is_interrupted(self, error: BaseException | None) -> bool:
        if self._stores.is_stopping() or self._refused_with >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return True
        return isinstance(error, BrokenStreamError) and error.status == HTTPStatus.SERVICE_UNAVAILABLE

    @property
    def _refused_with(self) -> int:
        return int(self._refusal[0]["status"]) if self._refusal else 0

    def _fault(self, error: BaseException | None) -> dict[str, Any]:
        """The `error` of the failed response."""
        if self._refusal:
            code = "server_error" if self._refused_with >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_prompt"
            return {"code": code, "message": _refusal_text(self._refusal)}
        return {"code": "server_error", "message": self._reason(error)}

    def _reason(self, error: BaseException | None) -> str:
        """What the client reads of an error; the log has all of it."""
        if error is None:
            return _NOTHING_SAID
        is_known = isinstance(error, BrokenStreamError)
        logger.error("background response %s: %s", self._request.id, error, exc_info=None if is_known else error)
        return str(error) if is_known else MISTAKE

    def _settle(self) -> None:
        if self.accepted.done():
            return
        if self._refusal and not self._has_client:
            self.accepted.set_exception(RefusedRequest(self._refusal))
        else:
            self.accepted.set_result(None)

    def _receive(self, body: bytes) -> Callable[[], Any]:
        sent = False

        async def receive() -> Message:
            nonlocal sent
            if not sent:
                sent = True
                return {"type": "http.request", "body": body, "more_body": False}
            await self._stop.wait()
            return {"type": "http.disconnect"}

        return receive

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._is_accepted = message["status"] == HTTPStatus.OK
        if not self._is_accepted:
            self._refusal.append(message)
            return
        body = message.get("body", b"")
        if self._stream.passes(body):
            self._keep([body])
            return
        if body:
            self._keep(self._stream.feed(body))
        self._to_write.set()

    def _keep(self, events: Sequence[bytes]) -> None:
        """Events for the store, if a client wanted a stream."""
        if self._request.keeps_events:
            self._events += map(data_of, events)
            self._to_write.set()

    async def _write(self) -> None:
        """Writes events as they come, and notices a cancellation by another worker."""
        while not self._over.is_set():
            if not await wait_or_timeout(self._to_write, _CHECK_INTERVAL_S):
                if self._has_started and not await until_available(self._runs):
                    self.stop()
                continue
            self._to_write.clear()
            await self._write_state()
            if self._stream.final is None:
                await self._write_new()
            if self._is_accepted and not self.accepted.done():
                self.accepted.set_result(None)
            await wait_or_timeout(self._over, _WRITE_INTERVAL_S)

    async def _write_state(self) -> None:
        if self._stream.started and not self._has_started:
            self._has_started = True
            if not await until_available(self._start):
                self.stop()

    async def _runs(self) -> bool:
        return await self._store.runs(self._record.row, self._record.attempt)

    async def _start(self) -> bool:
        started = {name: value for name, value in (self._stream.started or {}).items() if name != "output"}
        return await self._store.start(self._record.row, dumps(started), self._record.attempt)

    async def _write_new(self) -> None:
        new = self._events[:]
        if not new:
            return
        record = self._record
        if not await until_available(partial(self._store.append, record.row, self._written, new, record.attempt)):
            self.stop()
            return
        written = Events(self._written, new, record.attempt)
        self._written += len(new)
        del self._events[: len(new)]
        self._changed(written)


def _error_of(task: asyncio.Task[None]) -> BaseException | None:
    return None if task.cancelled() else task.exception()


def _refusal_text(messages: Sequence[Message]) -> str:
    """The sentence of an error's body."""
    body = b"".join(message.get("body", b"") for message in messages)
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return _NOTHING_SAID
