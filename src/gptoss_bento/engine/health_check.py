"""Health check of the engine. vLLM notices immediately that its process died; it does not notice that it hangs.

A GPU kernel that never ends, a collective operation that waits for a lost peer, or a stopped process (SIGSTOP) leave
vLLM's /health at 200 for ever (vLLM issues 39863, 37729). So the engine is polled: it answers between two of its steps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from gptoss_bento.errors import EngineDiedError

_PROBE_TIMEOUT_S = 2.0
_UNREADY_S = 10.0
"""A step of a large model takes seconds, not ten; beyond that others should get the requests."""


class EngineHealthCheck:
    """Polls an engine.

    Args:
        probe: returns when the engine has answered.
        limit_s: without an answer for so long the engine counts as frozen; 0 means never.
    """

    def __init__(self, probe: Callable[[], Awaitable[None]], limit_s: float) -> None:
        self._probe = probe
        self._limit_s = limit_s
        self._answered = time.monotonic()

    @property
    def silent_s(self) -> float:
        """Seconds since the last answer."""
        return time.monotonic() - self._answered

    @property
    def is_late(self) -> bool:
        """Whether an answer is overdue, though not for so long that the engine is given up."""
        return bool(self._limit_s) and self.silent_s > min(_UNREADY_S, self._limit_s / 2) + _PROBE_TIMEOUT_S

    async def run(self) -> None:
        """Runs until it is cancelled.

        Raises:
            EngineDiedError: the engine has not answered for too long.
        """
        while self._limit_s:
            with suppress(Exception):  # a dead engine refuses immediately, and server/worker.py watches for that
                async with asyncio.timeout(self._limit_s):
                    await self._probe()
                    self._answered = time.monotonic()
            if self.silent_s >= self._limit_s:
                raise EngineDiedError(
                    f"vLLM's engine has not answered for {self._limit_s:g} s (ENGINE_STALL_TIMEOUT); it hangs"
                )
            await asyncio.sleep(_PROBE_TIMEOUT_S)
