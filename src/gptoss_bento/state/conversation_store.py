"""The store of conversations: what /v1/conversations holds, each for its owner alone.

A conversation expires some time after its last change. What an owner deletes, what expires and what exceeds the owner's
bound is not found from then on; its rows go once no response of it is left. Its items are its own: copies of those of
its responses.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

import sqlalchemy as sa

from gptoss_bento.state.clock import Clock
from gptoss_bento.state.conversation import (
    ConversationLockedError,
    ConversationState,
    StoredConversation,
    UnknownConversationError,
)
from gptoss_bento.state.conversation_turns import add_items, ids_among, is_held, lock_unchanged
from gptoss_bento.state.database import Database
from gptoss_bento.state.owned_rows import expire_beyond, owners_of_more
from gptoss_bento.state.response import Page, StoredItem
from gptoss_bento.state.schema import CONVERSATION_ITEMS, CONVERSATIONS, RESPONSES
from gptoss_bento.state.statements import in_chunks, storable
from gptoss_bento.state.transactions import Store, reads, writes

_DELETED_PER_TRANSACTION = 20  # each may have thousands of items


class ItemExistsError(Exception):
    """The conversation has an item of this id, which is the text of the exception."""


class UnknownConversationItemError(Exception):
    """The conversation has no item of this id."""


class ConversationStore(Store):
    """The conversations of one database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        super().__init__(database)
        self._now = self.clock = clock

    # writing

    @writes
    def create(
        self, connection: sa.Connection, owner: str, new: StoredConversation, items: Sequence[StoredItem], ttl_ms: int
    ) -> None:
        """Stores a conversation with its first items, whose ids differ. Its id must be new."""
        row = {
            "owner": owner,
            "id": new.id,
            "created_at": new.created_at,
            "metadata": new.metadata,
            "next_position": 0,
            "expires_at": self._now() + ttl_ms,
        }
        seq = connection.execute(CONVERSATIONS.insert().returning(CONVERSATIONS.c.seq), row).scalar_one()
        add_items(connection, ConversationState(seq, 0), items)

    @writes
    def update(
        self, connection: sa.Connection, owner: str, conversation_id: str, metadata: str, ttl_ms: int
    ) -> StoredConversation:
        """Replaces the metadata. Returns the conversation.

        Raises:
            UnknownConversationError: the owner has no such conversation.
        """
        values = {"metadata": metadata, "expires_at": self._now() + ttl_ms}
        change = CONVERSATIONS.update().where(self._visible(owner, conversation_id)).values(values)
        if not connection.execute(change).rowcount:
            raise UnknownConversationError
        return self._found(connection, owner, conversation_id)[1]

    @writes
    def delete(self, connection: sa.Connection, owner: str, conversation_id: str) -> None:
        """Deletes a conversation with its items. A response that is generated in it goes on without it.

        Raises:
            UnknownConversationError: the owner has no such conversation.
        """
        seq = self._found(connection, owner, conversation_id)[0].seq
        values = {"id": f"deleted {seq}", "response_seq": sa.null(), "expires_at": 0}
        connection.execute(CONVERSATIONS.update().where(CONVERSATIONS.c.seq == seq).values(values))

    @writes
    def add(self, connection: sa.Connection, seen: ConversationState, items: Sequence[StoredItem], ttl_ms: int) -> None:
        """Adds items at the end.

        Args:
            seen: the conversation as the items were looked at for it.
            items: with ids that differ.
            ttl_ms: how long the conversation is kept from now on.

        Raises:
            ItemExistsError: the conversation has an item of one of their ids.
            ConversationLockedError: a response is generated in it, or its items have changed.
            UnknownConversationError: it was deleted meanwhile.
        """
        lock_unchanged(connection, seen, self._now())
        for taken in ids_among(connection, seen.seq, {item.id for item in items}):
            raise ItemExistsError(taken)
        add_items(connection, seen, items)
        self._keep(connection, seen.seq, ttl_ms)

    @writes
    def delete_item(
        self, connection: sa.Connection, owner: str, conversation_id: str, item_id: str, ttl_ms: int
    ) -> StoredConversation:
        """Deletes an item. Returns the conversation.

        Raises:
            ConversationLockedError: a response is generated in it.
            UnknownConversationError: the owner has no such conversation.
            UnknownConversationItemError: it has no such item.
        """
        seen, found = self._found(connection, owner, conversation_id, lock=True)
        if is_held(connection, self._holder(connection, seen.seq)):
            raise ConversationLockedError
        if not connection.execute(CONVERSATION_ITEMS.delete().where(_is_item(seen.seq, item_id))).rowcount:
            raise UnknownConversationItemError
        change = CONVERSATIONS.update().where(CONVERSATIONS.c.seq == seen.seq)
        connection.execute(change.values(next_position=seen.next_position + 1))
        self._keep(connection, seen.seq, ttl_ms)
        return found

    # reading

    @reads
    def get(self, connection: sa.Connection, owner: str, conversation_id: str) -> StoredConversation:
        """A conversation.

        Raises:
            UnknownConversationError: the owner has no such conversation.
        """
        return self._found(connection, owner, conversation_id)[1]

    @reads
    def history(
        self, connection: sa.Connection, owner: str, conversation_id: str
    ) -> tuple[ConversationState, list[str]]:
        """The state of a conversation, and the JSON texts of its items, the oldest first.

        Raises:
            UnknownConversationError: the owner has no such conversation.
        """
        seen, _ = self._found(connection, owner, conversation_id)
        of_it = sa.select(CONVERSATION_ITEMS.c.item).where(CONVERSATION_ITEMS.c.conversation_seq == seen.seq)
        return seen, list(connection.execute(of_it.order_by(CONVERSATION_ITEMS.c.position)).scalars())

    @reads
    def size(self, connection: sa.Connection, owner: str, conversation_id: str) -> tuple[int, int]:
        """How many items a conversation has, and of how many bytes of JSON, without reading them here.

        Raises:
            UnknownConversationError: the owner has no such conversation.
        """
        seen, _ = self._found(connection, owner, conversation_id)
        total = sa.func.coalesce(sa.func.sum(_bytes_of_item(connection)), 0)
        query = sa.select(sa.func.count(), total).where(CONVERSATION_ITEMS.c.conversation_seq == seen.seq)
        count, found = connection.execute(query).one()
        return int(count), int(found)

    @reads
    def item(self, connection: sa.Connection, owner: str, conversation_id: str, item_id: str) -> str:
        """The JSON text of an item.

        Raises:
            UnknownConversationError: the owner has no such conversation.
            UnknownConversationItemError: it has no such item.
        """
        seen, _ = self._found(connection, owner, conversation_id)
        found = connection.execute(sa.select(CONVERSATION_ITEMS.c.item).where(_is_item(seen.seq, item_id))).scalar()
        if found is None:
            raise UnknownConversationItemError
        return str(found)

    @reads
    def page(
        self,
        connection: sa.Connection,
        owner: str,
        conversation_id: str,
        *,
        order: Literal["asc", "desc"],
        limit: int,
        after: str | None = None,
    ) -> Page:
        """Some items of a conversation.

        Args:
            owner: of the conversation.
            conversation_id: its id.
            order: `asc`: the oldest first.
            limit: how many at most.
            after: the id of the item before the first.

        Raises:
            UnknownConversationError: the owner has no such conversation.
            UnknownConversationItemError: `after` is none of its items.
        """
        seen, _ = self._found(connection, owner, conversation_id)
        position = CONVERSATION_ITEMS.c.position
        within = CONVERSATION_ITEMS.c.conversation_seq == seen.seq
        if after is not None:
            start = connection.execute(sa.select(position).where(_is_item(seen.seq, after))).scalar()
            if start is None:
                raise UnknownConversationItemError
            within &= position > start if order == "asc" else position < start
        query = sa.select(CONVERSATION_ITEMS.c.id, CONVERSATION_ITEMS.c.item).where(within).limit(limit + 1)
        rows = connection.execute(query.order_by(position if order == "asc" else position.desc())).all()
        return Page(tuple(StoredItem(row.id, row.item) for row in rows[:limit]), len(rows) > limit)

    @reads
    def items(self, connection: sa.Connection, owner: str, ids: Collection[str]) -> dict[str, str]:
        """The JSON texts of those of these items that conversations of the owner have, by id."""
        found: dict[str, str] = {}
        of_owner = (CONVERSATIONS.c.owner == owner) & (CONVERSATIONS.c.expires_at > self._now())
        visible = CONVERSATIONS.c.seq == CONVERSATION_ITEMS.c.conversation_seq
        query = sa.select(CONVERSATION_ITEMS.c.id, CONVERSATION_ITEMS.c.item).join(CONVERSATIONS, visible)
        for chunk in in_chunks({storable(each) or "" for each in ids}):
            rows = connection.execute(query.where(of_owner, CONVERSATION_ITEMS.c.id.in_(chunk)))
            found |= {row.id: row.item for row in rows}
        return found

    # periodic work

    async def evict(self, most: int) -> int:
        """Expires those of each owner who has more than `most` that were not used for longest. Returns how many."""
        owners = await self._owners_of_more(most)
        return await self._evict(owners, most) if owners else 0

    @reads
    def _owners_of_more(self, connection: sa.Connection, most: int) -> list[str]:
        return owners_of_more(connection, CONVERSATIONS, most, self._now())

    @writes
    def _evict(self, connection: sa.Connection, owners: Sequence[str], most: int) -> int:
        return sum(expire_beyond(connection, CONVERSATIONS, owner, most, self._now()) for owner in owners)

    @writes
    def clean(self, connection: sa.Connection) -> int:
        """Deletes some of the conversations that no request finds, with their items. Returns how many.

        One of which there are responses stays for them: what continues such a response reads the items before it.
        """
        has_turns = sa.exists().where(RESPONSES.c.conversation_seq == CONVERSATIONS.c.seq)
        gone = sa.select(CONVERSATIONS.c.seq).where(CONVERSATIONS.c.expires_at <= self._now(), ~has_turns)
        some = gone.limit(_DELETED_PER_TRANSACTION).with_for_update(skip_locked=True)
        seqs = list(connection.execute(some).scalars())
        connection.execute(CONVERSATION_ITEMS.delete().where(CONVERSATION_ITEMS.c.conversation_seq.in_(seqs)))
        connection.execute(CONVERSATIONS.delete().where(CONVERSATIONS.c.seq.in_(seqs)))
        return len(seqs)

    def _visible(self, owner: str, conversation_id: str) -> sa.ColumnElement[bool]:
        is_it = (CONVERSATIONS.c.owner == owner) & (CONVERSATIONS.c.id == storable(conversation_id))
        return is_it & (CONVERSATIONS.c.expires_at > self._now())

    def _found(
        self, connection: sa.Connection, owner: str, conversation_id: str, *, lock: bool = False
    ) -> tuple[ConversationState, StoredConversation]:
        query = sa.select(CONVERSATIONS).where(self._visible(owner, conversation_id))
        row = connection.execute(query.with_for_update() if lock else query).one_or_none()
        if row is None:
            raise UnknownConversationError
        return ConversationState(row.seq, row.next_position), StoredConversation(row.id, row.created_at, row.metadata)

    def _holder(self, connection: sa.Connection, seq: int) -> int | None:
        found: Any = connection.execute(sa.select(CONVERSATIONS.c.response_seq).where(CONVERSATIONS.c.seq == seq))
        holder: int | None = found.scalar()
        return holder

    def _keep(self, connection: sa.Connection, seq: int, ttl_ms: int) -> None:
        expiry = {"expires_at": self._now() + ttl_ms}
        connection.execute(CONVERSATIONS.update().where(CONVERSATIONS.c.seq == seq).values(expiry))


def _is_item(seq: int, item_id: str) -> sa.ColumnElement[bool]:
    return (CONVERSATION_ITEMS.c.conversation_seq == seq) & (CONVERSATION_ITEMS.c.id == storable(item_id))


def _bytes_of_item(connection: sa.Connection) -> sa.ColumnElement[int]:
    if connection.dialect.name == "postgresql":
        return sa.func.octet_length(CONVERSATION_ITEMS.c.item)
    return sa.func.length(sa.cast(CONVERSATION_ITEMS.c.item, sa.LargeBinary))  # SQLite's octet_length is of 3.43
