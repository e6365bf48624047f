"""Slots for responses in the background: each holds one of its key's streams and of the engine's while it runs."""

from __future__ import annotations

from collections.abc import Callable

from gptoss_bento.access.admission import Admission, Grant, RefusedError, Rule, engine_rule, key_rules
from gptoss_bento.access.key_store import KeyStore
from gptoss_bento.access.stored_limits import present_limits


class BackgroundSlots:
    """The slots of one worker. What a request costs at its acceptance, its rates, is counted elsewhere.

    Args:
        keys: whose limits hold.
        admission: counts the admitted requests, together with those whose clients wait.
        engine_slots: MAX_OPENAI_REQUESTS.
        share: how many responses may run in this worker.
        may_run: whether the engine can take more; False while the service stops.
    """

    def __init__(
        self,
        keys: KeyStore | None = None,
        admission: Admission | None = None,
        engine_slots: int = 2048,
        share: int = 1024,
        may_run: Callable[[], bool] = lambda: True,
    ) -> None:
        self._keys = keys or KeyStore()
        self._admission = admission or Admission()
        self._engine_rule = engine_rule(engine_slots)
        self._share = share
        self._may_run = may_run
        self._in_use = 0
        self.is_paused = False

    @property
    def are_open(self) -> bool:
        """Whether this worker starts responses at all now."""
        return not self.is_paused and self._may_run()

    @property
    def are_free(self) -> bool:
        """Whether this worker may start one, if the rules admit it."""
        return self._in_use < self._share and self.are_open

    def enter(self, owner: str, key_limits: str | None = None) -> Grant | None:
        """Takes a slot, or returns None: there is none now.

        Args:
            owner: of the response.
            key_limits: that were stored with it. They hold if the owner's key was removed.
        """
        if not self.are_free:
            return None
        try:
            grant = self._admission.enter((self._engine_rule, *self._rules(owner, key_limits)))
        except RefusedError:
            return None
        self._in_use += 1
        return grant

    def leave(self, grant: Grant, owner: str, tokens: int = 0) -> None:
        """The response has ended here; it cost so many tokens."""
        self._in_use -= 1
        grant.leave()
        if tokens and (rules := key_rules(self._keys.of_owner(owner), streams=False)):
            self._admission.charge(rules, tokens)

    def _rules(self, owner: str, key_limits: str | None) -> tuple[Rule, ...]:
        """The bound on simultaneous requests of the owner's key."""
        streams = present_limits(self._keys, owner, key_limits).streams
        # A key with limits has a name, which is its owner too, so requests whose clients wait count in the same rule.
        return (Rule(f"key {owner}", "This key", concurrent=streams, pinned=False),) if streams else ()
