"""Writes that are repeated until the store is available."""

from __future__ import annotations

import pytest

from gptoss_bento.background import store_retries
from gptoss_bento.background.store_retries import until_available
from gptoss_bento.state.database import StoreUnavailableError


async def test_retry_ends_when_the_store_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_retries, "_FIRST_DELAY_S", 0)
    failures = [StoreUnavailableError("disk full"), StoreUnavailableError("disk full")]

    async def write() -> str:
        if failures:
            raise failures.pop()
        return "written"

    assert await until_available(write) == "written"
    assert failures == []


async def test_retry_is_only_for_an_unavailable_store() -> None:
    async def write() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await until_available(write)
