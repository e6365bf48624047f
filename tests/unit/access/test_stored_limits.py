"""The limits that are stored with what a key asked for."""

from __future__ import annotations

from gptoss_bento.access.key_store import KeyStore
from gptoss_bento.access.stored_limits import limits_text, present_limits
from gptoss_bento.config.api_keys import Key, KeyLimits, digest

ALICE = Key("alice", (digest("alice"),), KeyLimits(streams=1))
OTHER = Key("other", (digest("other"),))


def test_limits_that_are_stored_hold_only_where_the_key_was_removed() -> None:
    text = limits_text(Key("alice", ALICE.digests, KeyLimits(streams=2)))
    assert present_limits(KeyStore([OTHER, ALICE]), "alice", text) == ALICE.limits
    assert present_limits(KeyStore([OTHER]), "alice", text) == KeyLimits(streams=2)
    assert present_limits(KeyStore(closed=True), "alice", text) == KeyLimits(streams=2)


def test_limits_are_none_where_keys_are_switched_off_or_none_were_stored() -> None:
    assert limits_text(OTHER) is limits_text(None) is None
    for keys, owner, text in (
        (KeyStore(), "alice", limits_text(ALICE)),
        (KeyStore([OTHER]), "", limits_text(ALICE)),
        (KeyStore([OTHER]), "alice", None),
    ):
        assert present_limits(keys, owner, text) == KeyLimits()
