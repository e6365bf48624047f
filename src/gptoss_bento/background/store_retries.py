"""Repeats a write to the store until the store is available."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from gptoss_bento.state.database import StoreUnavailableError

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")

_FIRST_DELAY_S = 0.1
_MAX_DELAY_S = 2.0


async def until_available(operation: Callable[[], Awaitable[_Result]]) -> _Result:
    """Repeats a write until the store takes it: a full disk must not lose what was generated."""
    delay_s = _FIRST_DELAY_S
    while True:
        try:
            return await operation()
        except StoreUnavailableError as error:
            logger.warning("%s Trying again.", error)
        await asyncio.sleep(delay_s)
        delay_s = min(2 * delay_s, _MAX_DELAY_S)
