"""A response as a turn of a conversation: parts of the transactions that begin and end a response.

A turn holds its conversation from its beginning to its end: while its response runs, no other request changes the
items. Who holds it is the conversation's `response_seq`, and whether that one runs is in the responses' table. So
the lock of a worker that has died ends with its response.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from gptoss_bento.state.conversation import ConversationLockedError, ConversationState, UnknownConversationError
from gptoss_bento.state.response import RUNNING, StoredItem
from gptoss_bento.state.schema import CONVERSATION_ITEMS, CONVERSATIONS, RESPONSE_ITEMS, RESPONSES
from gptoss_bento.state.statements import in_chunks, storable


def begin_turn(
    connection: sa.Connection, seen: ConversationState, response_seq: int, now: int, expires_at: int
) -> None:
    """A response is generated from the items that were seen. It is the conversation's newest turn from now on.

    Raises:
        ConversationLockedError: another turn runs, or the items have changed.
        UnknownConversationError: the conversation was deleted meanwhile.
    """
    lock_unchanged(connection, seen, now)
    values = {"response_seq": response_seq, "expires_at": expires_at}
    connection.execute(CONVERSATIONS.update().where(CONVERSATIONS.c.seq == seen.seq).values(values))


def end_turn(connection: sa.Connection, conversation_seq: int, response_seq: int) -> None:
    """Adds the items of a response that has its answer, unless the conversation is gone or has had another turn."""
    newest = (CONVERSATIONS.c.seq == conversation_seq) & (CONVERSATIONS.c.response_seq == response_seq)
    row = connection.execute(sa.select(CONVERSATIONS.c.next_position).where(newest).with_for_update()).one_or_none()
    if row is None:
        return
    of_turn = sa.select(RESPONSE_ITEMS.c.id, RESPONSE_ITEMS.c.item).where(RESPONSE_ITEMS.c.response_seq == response_seq)
    items = [StoredItem(each.id, each.item) for each in connection.execute(of_turn.order_by(RESPONSE_ITEMS.c.position))]
    known = ids_among(connection, conversation_seq, {item.id for item in items})
    add_items(connection, ConversationState(conversation_seq, row.next_position), _without(items, known))


def lock_unchanged(connection: sa.Connection, seen: ConversationState, now: int) -> None:
    """Locks the row of a conversation for this transaction, if its items are those that were seen.

    Raises:
        ConversationLockedError: a turn runs, or the items have changed.
        UnknownConversationError: the conversation was deleted or has expired.
    """
    is_it = (CONVERSATIONS.c.seq == seen.seq) & (CONVERSATIONS.c.expires_at > now)
    row = connection.execute(sa.select(CONVERSATIONS).where(is_it).with_for_update()).one_or_none()
    if row is None:
        raise UnknownConversationError
    if row.next_position != seen.next_position or is_held(connection, row.response_seq):
        raise ConversationLockedError


def is_held(connection: sa.Connection, response_seq: int | None) -> bool:
    """Whether the newest turn of a conversation runs."""
    if response_seq is None:
        return False
    running = RESPONSES.c.status.in_(sorted(status.value for status in RUNNING))
    return (
        connection.execute(sa.select(RESPONSES.c.seq).where(RESPONSES.c.seq == response_seq, running)).scalar()
        is not None
    )


def ids_among(connection: sa.Connection, conversation_seq: int, ids: Collection[str]) -> set[str]:
    """Those of the ids that items of a conversation have."""
    found: set[str] = set()
    for chunk in in_chunks({storable(each) or "" for each in ids}):
        query = sa.select(CONVERSATION_ITEMS.c.id).where(CONVERSATION_ITEMS.c.conversation_seq == conversation_seq)
        found |= set(connection.execute(query.where(CONVERSATION_ITEMS.c.id.in_(chunk))).scalars())
    return found


def add_items(connection: sa.Connection, seen: ConversationState, items: Sequence[StoredItem]) -> None:
    """Adds items at the end of a conversation whose row this transaction has locked."""
    rows: list[dict[str, Any]] = [
        {
            "conversation_seq": seen.seq,
            "position": seen.next_position + i,
            "id": storable(item.id),
            "item": item.text,
        }
        for i, item in enumerate(items)
    ]
    if rows:
        connection.execute(CONVERSATION_ITEMS.insert(), rows)
        change = CONVERSATIONS.update().where(CONVERSATIONS.c.seq == seen.seq)
        connection.execute(change.values(next_position=seen.next_position + len(rows)))


def _without(items: Sequence[StoredItem], known: Collection[str]) -> list[StoredItem]:
    """Each id once: by its id an item is found, and a list goes on after it."""
    kept: dict[str, StoredItem] = {}
    for item in items:
        if item.id not in known:
            kept.setdefault(item.id, item)
    return list(kept.values())
