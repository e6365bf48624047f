"""The responses of one worker: made, followed, cancelled and cleaned up. The routes only ask this module."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from gptoss_bento.access.admission import Grant
from gptoss_bento.access.authentication import key_of
from gptoss_bento.access.stored_limits import limits_text
from gptoss_bento.background.store_retries import until_available
from gptoss_bento.background.tasks import WorkerTasks
from gptoss_bento.engine.owner import of_owner
from gptoss_bento.engine.usage import Meter
from gptoss_bento.http.body import with_body
from gptoss_bento.http.errors import HttpRefusalError
from gptoss_bento.http.internal_scope import internal_scope
from gptoss_bento.http.json_body import json_bytes
from gptoss_bento.http.paths import RESPONSES
from gptoss_bento.responses.background_queue import BackgroundQueue
from gptoss_bento.responses.background_run import BackgroundRun, Stores
from gptoss_bento.responses.background_slots import BackgroundSlots
from gptoss_bento.responses.connection_memory import generates, kept_response, memory_of, remembering
from gptoss_bento.responses.conversations import Conversations, LockedError, unknown_conversation
from gptoss_bento.responses.encryption import FIELD as ENCRYPTED
from gptoss_bento.responses.encryption import ReasoningCipher, SharedCipher, has_encrypted
from gptoss_bento.responses.error_places import with_own_places
from gptoss_bento.responses.following import Following, Key
from gptoss_bento.responses.foreground import ForegroundResponse, Recorder
from gptoss_bento.responses.item_check import refuse_unreadable
from gptoss_bento.responses.kept_request import kept_request, read_kept, with_items
from gptoss_bento.responses.objects import first_object
from gptoss_bento.responses.prepared import prepare, refuse_other_than_items
from gptoss_bento.responses.record import Record
from gptoss_bento.responses.recording import stored_row
from gptoss_bento.responses.replay import replay
from gptoss_bento.responses.request import CreateRequest, readable, without_repeats
from gptoss_bento.responses.truncation import fitted, room_for_answer, surely_fits, tokens_of
from gptoss_bento.responses.turn_ids import refuse_taken
from gptoss_bento.state.conversation import ConversationLockedError, ConversationState, UnknownConversationError
from gptoss_bento.state.conversation_store import ConversationStore
from gptoss_bento.state.idempotency import IdempotencyStore, IdempotentUse
from gptoss_bento.state.response import RUNNING, NewResponse, ResponseStatus, StoredItem, StoredResponse
from gptoss_bento.state.response_queue import Claimed, ResponseQueue
from gptoss_bento.state.response_store import ResponseExistsError, ResponseStore, UnknownResponseError
from gptoss_bento.state.secret_store import SecretStore
from gptoss_bento.strict_json import dumps, loads_stored, shown

logger = logging.getLogger(__name__)

OTHER_VERSION = "Another version of this server accepted this response, and this one cannot generate it."
OTHER_KEY = "The reasoning in this request is encrypted by a key that RESPONSES_ENCRYPTION_KEY does not have any more."
_EVICT_INTERVAL_S = 10.0
_KEYS_INTERVAL_S = 60.0
_CLEAN_INTERVAL_S = 5.0
_LOST_INTERVAL_S = 3.0


@dataclass(frozen=True)
class Asker:
    """Who makes a request, and the Idempotency-Key that it came with, if any."""

    owner: str
    use: IdempotentUse | None = None


class StoredResponses:
    """The responses that this worker makes, and those of the store.

    Args:
        store: of the responses.
        worker_id: of this worker, which has a lease in the same database.
        ttl_s: seconds that a response is kept.
        most: how many an owner may have.
        model: the name of the model where a request has none.
        encryption_keys: the operator's; without them one is made and kept in the database.
        context_tokens: of prompt and answer together; 0: not known, and nothing is truncated.
        slots: for responses in the background.
        most_waiting: how many of these may wait for one.
        conversation_bytes: of JSON that the items of a conversation may have.
    """

    def __init__(
        self,
        store: ResponseStore,
        worker_id: str,
        ttl_s: int,
        most: int,
        model: str,
        encryption_keys: Sequence[str] = (),
        context_tokens: int = 0,
        slots: BackgroundSlots | None = None,
        most_waiting: int = 10_000,
        conversation_bytes: int = 20 * 1024 * 1024,
    ) -> None:
        self.store = store
        self._cipher = SharedCipher(SecretStore(store.database), encryption_keys)
        self.idempotency = IdempotencyStore(store.database, store.clock)
        queue = ResponseQueue(store.database, store.clock)
        self._queue = BackgroundQueue(queue, worker_id, slots or BackgroundSlots(), most_waiting)
        self._worker_id = worker_id
        self._ttl_ms = ttl_s * 1000
        self._most = most
        self._model = model
        self._context_tokens = context_tokens
        self._tasks = WorkerTasks()
        self._runs: dict[tuple[str, str], BackgroundRun] = {}
        self._following = Following(store, queue)
        conversations = ConversationStore(store.database, store.clock)
        self.conversations = Conversations(conversations, store, ttl_s, most, self._cipher, conversation_bytes)

    def start(self, app: ASGIApp) -> None:
        """Begins to generate what waits in the background, and to clean up.

        Args:
            app: vLLM's application.
        """
        self._queue.start(self._tasks, partial(self._generate, app))
        for interval_s, work in (
            (_LOST_INTERVAL_S, self._fail_lost),
            (_CLEAN_INTERVAL_S, self._clean),
            (_EVICT_INTERVAL_S, self._evict),
            (_KEYS_INTERVAL_S, self._clean_keys),
        ):
            self._tasks.spawn(self._tasks.every(interval_s, work))

    @property
    def running(self) -> int:
        """How many responses of the background run here."""
        return len(self._runs)

    def pause(self) -> None:
        """The service is about to stop: what waits is left to others, and what cannot go on is requeued."""
        self._queue.slots.is_paused = True
        self._following.leave([ResponseStatus.QUEUED])

    async def stop(self, timeout_s: float) -> None:
        """Waits until all that ends is stored, at most so long."""
        self._tasks.stopping.set()
        self._queue.wake()
        await self._tasks.stop(timeout_s)
        self._following.leave(RUNNING)

    # making

    async def create(
        self, request: CreateRequest, asker: Asker, app: ASGIApp, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answers a request whose client waits.

        Raises:
            HttpRefusalError: what it continues or names is not there.
            KeyUsedError: its Idempotency-Key has been used.
            StoreUnavailableError: nothing has been generated.
        """
        if not generates(scope):
            refuse_other_than_items(request.asked.get("input"))
        is_unread = bool(request.given) and not generates(scope)
        request = await remembering(request, memory_of(scope), partial(self._history, owner=asker.owner))
        items, body, seen = await self._body_of(request, asker.owner, app)
        if is_unread:
            await refuse_unreadable(app, scope, body)
        request = await self._encrypting(request, asker.owner)
        first = first_object(request, "in_progress", int(time.time()), self._model)
        record: Recorder | None = kept_response(scope, items)
        if request.stores:
            new = self._new(request, asker, first, items, seen)
            record = Record(self.store, self._tasks, await self._recorded(new, request))
        if not generates(scope):
            await prepare(first, record, send)
            return
        response = ForegroundResponse(request, first, record, send)
        await response.run(with_own_places(app, request), scope, with_body(body, receive))

    async def create_in_background(
        self, request: CreateRequest, asker: Asker, app: ASGIApp, scope: Scope
    ) -> dict[str, Any]:
        """Starts a response that no client waits for, or queues it if there is no slot. Returns its object.

        One that starts now is returned when vLLM has accepted the request.

        Raises:
            HttpRefusalError: what it continues or names is not there, or too many wait already.
            KeyUsedError: its Idempotency-Key has been used.
            RefusedRequest: vLLM has refused it.
            StoreUnavailableError: nothing has been generated.
        """
        items, body, seen = await self._body_of(request, asker.owner, app, streams=True)
        request = await self._encrypting(request, asker.owner)
        first = first_object(request, "queued", int(time.time()), self._model)
        kept = kept_request(request, await self._sealed(request, asker.owner, body))
        grant = await self._queue.slot(asker.owner, may_wait=kept is not None)
        worker_id, attempt = (None, 0) if grant is None else (self._worker_id, 1)
        queued = replace(self._new(request, asker, first, items, seen), request=kept, worker_id=worker_id)
        new = replace(queued, attempt=attempt, key_limits=limits_text(key_of(scope)))
        try:
            row = await self._recorded(new, request)
        except BaseException:
            if grant is not None:
                self._queue.slots.leave(grant, asker.owner)
            raise
        if grant is None:
            self._queue.wake()
            return first
        run = self._run(request, asker.owner, first, Record(self.store, self._tasks, row, 1))
        # 2.3: vLLM's stream listens for a disconnect, which is how a cancellation reaches it.
        alone = {**scope, "asgi": {"version": "3.0", "spec_version": "2.3"}, "state": {}}
        self._launch(run, grant, (asker.owner, request.id), with_own_places(app, request), alone, body)
        await asyncio.shield(run.accepted)
        return first

    def _generate(self, app: ASGIApp, claimed: Claimed, grant: Grant) -> None:
        """Starts a response that has waited, or whose worker has ended."""
        try:
            request, body = read_kept(claimed.request)
        except TypeError:  # another version has accepted it
            logger.exception("response %s cannot be generated by this version", claimed.id)
            self._give_up(claimed, grant, OTHER_VERSION)
            return
        self._tasks.spawn(self._generate_kept(app, claimed, grant, request, body))

    def _give_up(self, claimed: Claimed, grant: Grant, reason: str) -> None:
        self._queue.slots.leave(grant, claimed.owner)
        self._tasks.spawn(until_available(partial(self.store.fail, claimed.row, reason, claimed.attempt)))

    async def _generate_kept(
        self, app: ASGIApp, claimed: Claimed, grant: Grant, request: CreateRequest, body: bytes
    ) -> None:
        try:
            body = await until_available(partial(self._opened, claimed.owner, body))
        except HttpRefusalError:
            self._give_up(claimed, grant, OTHER_KEY)
            return
        record = Record(self.store, self._tasks, claimed.row, claimed.attempt)
        request = await until_available(partial(self._encrypting, request, claimed.owner))
        first = {**loads_stored(claimed.object), "output": []}
        run = self._run(request, claimed.owner, first, record, is_accepted=True)
        self._launch(run, grant, (claimed.owner, claimed.id), app, internal_scope("POST", RESPONSES), body)

    def _run(
        self,
        request: CreateRequest,
        owner: str,
        first: Mapping[str, Any],
        record: Record,
        *,
        is_accepted: bool = False,
    ) -> BackgroundRun:
        changed = partial(self._following.tell, (owner, request.id))
        slots, stopping = self._queue.slots, self._tasks.stopping
        stops = (lambda: slots.is_paused or stopping.is_set()), (lambda: slots.is_paused)
        stores = Stores(self.store, self._queue.store, changed, *stops)
        return BackgroundRun(request, first, record, stores, is_accepted=is_accepted)

    def _launch(self, run: BackgroundRun, grant: Grant, key: Key, app: ASGIApp, scope: Scope, body: bytes) -> None:
        """Runs a response in a task of its own, which holds the slot."""

        async def metered() -> None:
            with of_owner(key[0]), Meter() as meter:
                try:
                    await run.run(app, scope, body)
                finally:
                    self._queue.slots.leave(grant, key[0], meter.tokens)
                    self._queue.wake()

        self._runs[key] = run
        task = self._tasks.spawn(metered())
        task.add_done_callback(lambda _: self._forget(key, run))

    def _forget(self, key: Key, run: BackgroundRun) -> None:
        if self._runs.get(key) is run:
            del self._runs[key]

    async def counted(self, request: CreateRequest, owner: str, app: ASGIApp) -> bytes:
        """What vLLM would get for a request, whose tokens are to be counted.

        Raises:
            HttpRefusalError: what it continues or names is not there.
        """
        _, body, _ = await self._body_of(request, owner, app)
        return body

    async def whole_input(self, request: CreateRequest, owner: str) -> list[Any]:
        """The items of a request and those before it, as far as vLLM can read them again.

        Raises:
            HttpRefusalError: what it continues or names is not there.
        """
        referenced = await self.conversations.referenced(owner, request.references)
        _, earlier = await self._earlier(request, owner)
        found = [*readable(without_repeats(earlier, referenced.keys())), *request.items(referenced)]
        if not any(map(has_encrypted, found)):
            return found
        cipher = await self._cipher.get()
        return [cipher.restored(owner, item) for item in found]

    async def _body_of(
        self, request: CreateRequest, owner: str, app: ASGIApp, *, streams: bool | None = None
    ) -> tuple[list[Any], bytes, ConversationState | None]:
        """The items of a request, what vLLM gets for it, and the conversation as it is in that.

        First of all: what cannot be written is refused here.
        """
        if not request.has_input:
            return [], json_bytes(request.for_engine(None, streams=streams)), None
        items, sent, seen = await self._items_of(request, owner)
        body = json_bytes(request.for_engine(sent, streams=streams))
        if request.truncates and self._context_tokens:
            body = await self._fitted(request, body, request.given if sent is None else sent, app, streams)
        return items, body, seen

    async def _fitted(
        self, request: CreateRequest, body: bytes, sent: Sequence[Any], app: ASGIApp, streams: bool | None
    ) -> bytes:
        """The body with as many of its items as leave room for the answer."""
        most = self._context_tokens - room_for_answer(self._context_tokens, request.asked.get("max_output_tokens"))
        if surely_fits(body, most):
            return body

        async def count(some: Sequence[Any]) -> int | None:
            return await tokens_of(app, json_bytes(request.for_count(some)))

        return json_bytes(request.for_engine(await fitted(sent, most, count), streams=streams))

    async def _items_of(
        self, request: CreateRequest, owner: str
    ) -> tuple[list[Any], list[Any] | None, ConversationState | None]:
        """The items of a request, those that vLLM gets (None: as they were sent), and the conversation."""
        referenced = await self.conversations.referenced(owner, request.references)
        items = request.items(referenced) if request.stores or request.needs_history or request.is_kept else []
        if not request.needs_history and not request.has_encrypted:
            return items, None, None
        cipher = await self._cipher.get()
        new = request.decrypted(items, partial(cipher.with_decrypted, owner))
        seen, history = await self._earlier(request, owner)
        if request.conversation is not None:
            refuse_taken(request.given, history)
        earlier = without_repeats(history, referenced.keys())
        return items, [cipher.restored(owner, item) for item in (*readable(earlier), *new)], seen

    async def _encrypting(self, request: CreateRequest, owner: str) -> CreateRequest:
        """The request with what encrypts the reasoning of its answer, if it asks for that."""
        if not request.wants_encrypted:
            return request
        cipher: ReasoningCipher = await self._cipher.get()
        return replace(request, encrypted=partial(cipher.with_encrypted, owner))

    async def _sealed(self, request: CreateRequest, owner: str, body: bytes) -> bytes:
        """A body as it may be kept: what a client encrypts is in no database in clear."""
        may_have = request.needs_history or request.has_encrypted
        if not may_have or b'"reasoning"' not in body:
            return body
        return with_items(body, partial((await self._cipher.get()).sealed, owner))

    async def _opened(self, owner: str, body: bytes) -> bytes:
        """A kept body as vLLM gets it.

        Raises:
            HttpRefusalError: the key that encrypted its reasoning is not there any more.
        """
        if ENCRYPTED.encode() not in body:
            return body
        cipher = await self._cipher.get()
        return with_items(body, lambda item: cipher.with_decrypted(owner, item, "input"))

    async def _earlier(self, request: CreateRequest, owner: str) -> tuple[ConversationState | None, list[Any]]:
        """The items before those of a request, and their conversation, if they are one's."""
        if request.conversation is not None:
            return await self.conversations.history_for_turn(owner, request.conversation)
        return None, await self._history(request.previous, owner) if request.previous is not None else []

    async def _history(self, previous: str, owner: str) -> list[Any]:
        try:
            status, texts = await self.store.history(owner, previous)
        except UnknownResponseError:
            raise unknown(previous, "previous_response_id") from None
        if not status.is_terminal:
            message = f"Response {shown(previous)} is still {status}: it can be continued when it has ended."
            raise HttpRefusalError(HTTPStatus.BAD_REQUEST, message, param="previous_response_id")
        return [loads_stored(text) for text in texts]

    def _new(
        self,
        request: CreateRequest,
        asker: Asker,
        first: Mapping[str, Any],
        items: list[Any],
        seen: ConversationState | None,
    ) -> NewResponse:
        return NewResponse(
            owner=asker.owner,
            id=request.id,
            object=dumps({name: value for name, value in first.items() if name != "output"}),
            input=[StoredItem(str(item["id"]), dumps(item)) for item in items if isinstance(item, dict)],
            previous=request.previous,
            worker_id=self._worker_id,
            status=ResponseStatus(first["status"]),
            keeps_events=request.keeps_events,
            use=asker.use,
            conversation=seen,
        )

    async def _recorded(self, new: NewResponse, request: CreateRequest) -> int:
        """Stores a new response. Returns its row."""
        try:
            return await stored_row(self.store, self._tasks, new, self._ttl_ms)
        except ResponseExistsError:
            message = f"request_id is the id of a response that is stored already: {shown(new.id)}."
            raise HttpRefusalError(HTTPStatus.BAD_REQUEST, message, param="request_id") from None
        except UnknownResponseError:  # deleted since its history was read
            raise unknown(str(new.previous), "previous_response_id") from None
        except UnknownConversationError:
            raise unknown_conversation(str(request.conversation), "conversation") from None
        except ConversationLockedError:
            raise LockedError(str(request.conversation), "conversation") from None

    # following

    def events(self, owner: str, response_id: str, start: int) -> AsyncIterator[bytes]:
        """The events of a response from the position `start` on, as they come, until it has ended."""
        key = owner, response_id
        return self._following.events(key, start, is_here=key in self._runs)

    def replayed(self, owner: str, response_id: str, start: int) -> AsyncIterator[bytes]:
        """The same of a response whose events are not stored: they are made from its object."""
        return replay(self.store, owner, response_id, start, self._following.has_left)

    async def cancel(self, owner: str, response_id: str) -> StoredResponse:
        """Ends a response of the background as cancelled; one that has ended stays as it is.

        Raises:
            HttpRefusalError: there is none, or its client waits for it.
        """
        found = await self.store.get(owner, response_id)
        if found is None:
            raise unknown(response_id, "response_id")
        if not loads_stored(found.object).get("background"):
            message = "Only a response with background: true can be cancelled. End another by closing its connection."
            raise HttpRefusalError(HTTPStatus.BAD_REQUEST, message, param="response_id")
        found = await self.store.cancel(owner, response_id)
        self._stop(owner, response_id)
        if found is None:
            raise unknown(response_id, "response_id")
        return found

    async def delete(self, owner: str, response_id: str) -> None:
        """Deletes a response; one of the background is stopped.

        Raises:
            HttpRefusalError: there is none.
        """
        if not await self.store.delete(owner, response_id):
            raise unknown(response_id, "response_id")
        self._stop(owner, response_id)

    def _stop(self, owner: str, response_id: str) -> None:
        if run := self._runs.get((owner, response_id)):
            run.stop()
        self._following.tell((owner, response_id))

    # periodic work

    async def _fail_lost(self) -> None:
        await self.store.fail_lost()

    async def _evict(self) -> None:
        await self.store.evict(self._most)
        await self.conversations.evict()

    async def _clean(self) -> None:
        for clean in (self.store.clean, self.conversations.store.clean):
            while not self._tasks.stopping.is_set() and await clean():
                pass

    async def _clean_keys(self) -> None:
        await self.idempotency.clean()


def unknown(response_id: str, param: str) -> HttpRefusalError:
    """404: the owner has no such response."""
    return HttpRefusalError(HTTPStatus.NOT_FOUND, f"There is no response {shown(response_id)}.", param=param)
