"""Waiting for what a test expects: for the event itself, under a ceiling that only a hang reaches.

So no test depends on how fast the machine is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

HANG_S = 120.0


def wait_for(
    happened: Callable[[], object], otherwise: Callable[[], str] = lambda: "it hangs", ceiling_s: float = HANG_S
) -> None:
    """Polls until it has happened.

    Args:
        happened: whether it has.
        otherwise: what is said of a hang.
        ceiling_s: what only a hang reaches.
    """
    deadline = time.monotonic() + ceiling_s
    while not happened():
        assert time.monotonic() < deadline, f"after {ceiling_s:g} s: {otherwise()}"
        time.sleep(0.01)


async def until(happened: Callable[[], object]) -> None:
    """The same within a loop, which goes on meanwhile."""
    async with asyncio.timeout(HANG_S):
        while not happened():  # noqa: ASYNC110  # whatever it is
            await asyncio.sleep(0.005)
