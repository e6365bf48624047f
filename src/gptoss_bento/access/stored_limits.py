"""The limits of a key as they are stored with what it asked for: they hold for that also when the key was removed."""

from __future__ import annotations

from gptoss_bento.access.key_store import KeyStore
from gptoss_bento.config.api_keys import Key, KeyLimits
from gptoss_bento.strict_json import loads


def limits_text(key: Key | None) -> str | None:
    """The limits of a key, as they are stored."""
    return key.limits.model_dump_json(exclude_none=True) if key and key.limits != KeyLimits() else None


def stored_limits(text: str | None) -> KeyLimits:
    """What `limits_text` wrote."""
    # Not validated: another version may have written it, and a job that cannot be read could not even end.
    return KeyLimits.model_construct(**loads(text)) if text else KeyLimits()


def present_limits(keys: KeyStore, owner: str | None, text: str | None) -> KeyLimits:
    """The limits that hold now for what an owner asked for.

    Args:
        keys: that are valid now; nothing is bounded where none are configured any more.
        owner: who asked; empty or None: an open server's client.
        text: what `limits_text` wrote then. It holds if the owner's key was removed.
    """
    if not owner or keys.is_open:
        return KeyLimits()
    key = keys.of_owner(owner)
    return key.limits if key else stored_limits(text)
