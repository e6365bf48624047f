"""Signs of life of the engine. A process that died is noticed at once by vLLM; one that hangs is noticed by nobody.

A GPU kernel that never ends, a collective operation that waits for a lost peer, or a stopped process (SIGSTOP) leave
vLLM's /health at 200 for ever (vLLM issues 39863, 37729). So the engine is asked for a word between two of its steps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from gptoss_bento.errors import EngineDiedError

_ASK_S = 2.0
_UNREADY_S = 10.0
"""A step of a large model takes seconds, not ten; beyond that others should get the requests."""


class EngineHealthCheck:
    """Asks an engine again and again whether it lives.

    Args:
        ask: returns when the engine has answered.
        limit_s: without an answer for so long the engine counts as frozen; 0 means never.
    """

    def __init__(self, ask: Callable[[], Awaitable[None]], limit_s: float) -> None:
        self._ask = ask
        self._limit_s = limit_s
        self._answered = time.monotonic()

    @property
    def silent_s(self) -> float:
        """Seconds since the last answer."""
        return time.monotonic() - self._answered

    @property
    def is_late(self) -> bool:
        """Whether an answer is overdue, though not for so long that the engine is given up."""
        return bool(self._limit_s) and self.silent_s > min(_UNREADY_S, self._limit_s / 2) + _ASK_S

    async def run(self) -> None:
        """Runs until it is cancelled.

        Raises:
            EngineDiedError: the engine has not answered for too long.
        """
        while self._limit_s:
            with suppress(Exception):  # a dead engine refuses at once; whoever watches it sees that without us
                async with asyncio.timeout(self._limit_s):
                    await self._ask()
                    self._answered = time.monotonic()
            if self.silent_s >= self._limit_s:
                raise EngineDiedError(
                    f"vLLM's engine has not answered for {self._limit_s:g} s (ENGINE_STALL_TIMEOUT); it hangs"
                )
            await asyncio.sleep(_ASK_S)
