"""Waiting for an event, for so long at most."""

from __future__ import annotations

import asyncio
from contextlib import suppress


async def wait_or_timeout(event: asyncio.Event, limit_s: float) -> bool:
    """Waits for an event, at most so many seconds. Returns whether it is set."""
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), limit_s)
    return event.is_set()
