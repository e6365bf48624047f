"""The conversations of one worker: made, changed, continued and cleaned up. The routes only ask this module."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

from starlette.types import Scope

from gptoss_bento.http.errors import FieldError, HttpRefusalError
from gptoss_bento.http.json_body import json_bytes
from gptoss_bento.responses.conversation_request import naming_items, refuse_repeats, taken_id
from gptoss_bento.responses.encryption import SharedCipher, has_encrypted
from gptoss_bento.responses.item_check import ItemCheck
from gptoss_bento.responses.request import CreateRequest, read_create, readable
from gptoss_bento.state.conversation import (
    ConversationLockedError,
    ConversationState,
    StoredConversation,
    UnknownConversationError,
)
from gptoss_bento.state.conversation_store import ConversationStore, ItemExistsError
from gptoss_bento.state.response import StoredItem
from gptoss_bento.state.response_store import ResponseStore
from gptoss_bento.strict_json import dumps, loads_stored, shown

MOST_ITEMS = 10_000
"""Items of a conversation: each turn reads them all, and no context of tokens holds more."""


class LockedError(HttpRefusalError):
    """409: another request is at work in the conversation. OpenAI's SDKs try again by themselves."""

    def __init__(self, conversation_id: str, param: str | None = None) -> None:
        message = f"Another request is at work in conversation {shown(conversation_id)}. Try again when it has ended."
        super().__init__(HTTPStatus.CONFLICT, message, param=param, code="conversation_locked")


class Conversations:
    """The conversations of the store.

    Args:
        store: of the conversations.
        responses: in the same database, whose items can be named.
        ttl_s: seconds that a conversation is kept after its last change.
        most: how many an owner may have.
        cipher: of the reasoning that clients keep.
        most_bytes: of JSON that the items of one may have; a turn that begins below that is added whole.
    """

    def __init__(
        self,
        store: ConversationStore,
        responses: ResponseStore,
        ttl_s: int,
        most: int,
        cipher: SharedCipher,
        most_bytes: int,
    ) -> None:
        self.store = store
        self.ttl_ms = ttl_s * 1000
        self._responses = responses
        self._most = most
        self._cipher = cipher
        self._most_bytes = most_bytes

    async def create(
        self, owner: str, metadata: Mapping[str, str], items: Sequence[Any], check: ItemCheck, scope: Scope
    ) -> StoredConversation:
        """Stores a new conversation.

        Raises:
            HttpRefusalError: an item is none that a prompt can have.
        """
        new = StoredConversation(f"conv_{uuid.uuid4().hex}", self.store.clock(), dumps(metadata))
        added = await self._readable(owner, [], items, check, scope, self._most_bytes)
        await self.store.create(owner, new, added, self.ttl_ms)
        return new

    async def add(
        self, owner: str, conversation_id: str, items: Sequence[Any], check: ItemCheck, scope: Scope
    ) -> list[StoredItem]:
        """Adds items at the end. Returns them as they are stored.

        Raises:
            HttpRefusalError: an item is none that a prompt can have, or the conversation can have no more.
            LockedError: a response is generated in it.
            UnknownConversationError: the owner has no such conversation.
        """
        count, size = await self.store.size(owner, conversation_id)
        if count + len(items) > MOST_ITEMS:
            raise FieldError("items", _full(conversation_id))
        room = self._most_bytes - size
        if items and room <= 0:  # its items are not even read
            raise self._too_large("items")
        seen, history = await self.history(owner, conversation_id)
        added = await self._readable(owner, history, items, check, scope, room)
        try:
            await self.store.add(seen, added, self.ttl_ms)
        except ItemExistsError as error:
            raise taken_id([{"id": item.id} for item in added], str(error)) from None
        except ConversationLockedError:
            raise LockedError(conversation_id) from None
        return added

    async def _readable(
        self, owner: str, history: Sequence[Any], given: Sequence[Any], check: ItemCheck, scope: Scope, room: int
    ) -> list[StoredItem]:
        if not given:
            return []
        request = read_create({"input": list(given)})
        with naming_items():
            check.refuse_fields(given)
            items = request.items(await self.referenced(owner, request.references))
            made = [StoredItem(item["id"], dumps(item)) for item in items]
            if sum(len(item.text.encode()) for item in made) > room:
                raise self._too_large("input")
            read = readable([*check.before(history, items), *await self._decrypted(request, items, owner)])
            await check.refuse_unreadable(scope, json_bytes(request.for_engine([*read])))
        refuse_repeats(items)
        return made

    async def _decrypted(self, request: CreateRequest, items: Sequence[Any], owner: str) -> list[Any]:
        """The items as each later turn will read them; another key's reasoning would end them all."""
        if not any(map(has_encrypted, items)):
            return list(items)
        cipher = await self._cipher.get()
        given = request.decrypted(items, partial(cipher.with_decrypted, owner))
        return [cipher.restored(owner, item) for item in given]

    def _too_large(self, field: str) -> FieldError:
        most = f"{self._most_bytes:,} bytes (MAX_OPENAI_BODY_BYTES)"
        return FieldError(field, f"The items of a conversation have {most} at most: begin another.")

    async def referenced(self, owner: str, ids: Collection[str]) -> dict[str, Any]:
        """Those of these items that responses or conversations of the owner have, by id."""
        found = await self._responses.items(owner, ids) if ids else {}
        if missing := set(ids) - found.keys():
            found |= await self.store.items(owner, missing)
        return {item_id: loads_stored(text) for item_id, text in found.items()}

    async def history(self, owner: str, conversation_id: str) -> tuple[ConversationState, list[Any]]:
        """The items of a conversation, the oldest first.

        Raises:
            UnknownConversationError: the owner has no such conversation.
        """
        seen, texts = await self.store.history(owner, conversation_id)
        return seen, [loads_stored(text) for text in texts]

    async def history_for_turn(self, owner: str, conversation_id: str) -> tuple[ConversationState, list[Any]]:
        """The same for a response.

        Raises:
            HttpRefusalError: the owner has no such conversation, or it can have no more items.
        """
        try:
            count, size = await self.store.size(owner, conversation_id)
            if count >= MOST_ITEMS:
                raise FieldError("conversation", _full(conversation_id))
            if size >= self._most_bytes:
                raise self._too_large("conversation")
            return await self.history(owner, conversation_id)
        except UnknownConversationError:
            raise unknown_conversation(conversation_id, "conversation") from None

    async def evict(self) -> None:
        """Expires those beyond the owners' bound."""
        await self.store.evict(self._most)


def _full(conversation_id: str) -> str:
    return f"Conversation {shown(conversation_id)} would have more than {MOST_ITEMS:,} items: begin another."


def unknown_conversation(conversation_id: str, param: str = "conversation_id") -> HttpRefusalError:
    """404: the owner has no such conversation."""
    message = f"There is no conversation {shown(conversation_id)}."
    return HttpRefusalError(HTTPStatus.NOT_FOUND, message, param=param)
