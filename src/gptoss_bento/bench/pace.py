"""How fast an engine without a model goes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

STEP_MS = "gptoss_bento_step_ms"
"""The entry of vLLM's `additional_config`, which reaches an executor unchanged."""


class Pace:
    """Lets a step begin no sooner than so long after the one before.

    Args:
        step_s: seconds; 0 holds up nothing.
    """

    def __init__(self, step_s: float = 0.0) -> None:
        self._step_s = step_s
        self._next = 0.0

    @classmethod
    def of(cls, additional_config: Mapping[str, Any]) -> Pace:
        """What `bench frontend --step-ms` asked for."""
        return cls(float(additional_config.get(STEP_MS, 0)) / 1000)

    def keep(self) -> None:
        """Returns when the next step may begin."""
        if not self._step_s:
            return
        now = time.monotonic()
        time.sleep(max(self._next - now, 0))
        self._next = max(self._next, now) + self._step_s
