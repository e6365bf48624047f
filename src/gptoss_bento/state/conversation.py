"""A stored conversation of /v1/conversations: its records."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StoredConversation:
    """A conversation without its items.

    Args:
        id: of the conversation; its owner has no other of it.
        created_at: milliseconds since 1970.
        metadata: the client's, as JSON.
    """

    id: str
    created_at: int
    metadata: str


@dataclass(frozen=True)
class ConversationState:
    """The items of a conversation as they were at some moment: who changes them says which he has seen.

    Args:
        seq: of the conversation's row.
        next_position: grows with each change.
    """

    seq: int
    next_position: int


class UnknownConversationError(Exception):
    """The owner has no such conversation. That another owner has it makes no difference."""


class ConversationLockedError(Exception):
    """A response is generated in the conversation, or another request has changed its items meanwhile."""
