"""Secrets that all workers of a database share."""

from __future__ import annotations

import asyncio

from gptoss_bento.state.secret_store import SecretStore
from gptoss_bento.state.store import JobStore


async def test_secret_is_that_of_the_first_who_asks(store: JobStore) -> None:
    workers = [SecretStore(store.database) for _ in range(3)]
    found = await asyncio.gather(*(worker.shared("a", f"secret-{i}") for i, worker in enumerate(workers)))

    assert len(set(found)) == 1
    assert await workers[0].shared("a", "another") == found[0]
    assert await workers[0].shared("b", "another") == "another"
