"""Which webhooks are due."""

from __future__ import annotations

from dataclasses import replace

from gptoss_bento.state.job import Webhook
from gptoss_bento.state.store import JobStore
from tests.stores import Clock
from tests.unit.state.stored import submit


async def test_webhook_is_due_from_the_jobs_end_until_it_is_settled(store: JobStore, clock: Clock) -> None:
    await submit(store, "a", "b", webhook="https://x.org")
    await submit(store, "c")
    assert await store.due_webhooks(9, 30_000) == []
    await store.purge()

    due = await store.due_webhooks(9, 30_000)
    assert sorted(due, key=lambda one: one.job_id) == [
        Webhook("a", "https://x.org", 1),
        Webhook("b", "https://x.org", 1),
    ]
    assert await store.due_webhooks(9, 30_000) == [], "somebody is at it"
    await store.settle(due[0], None)
    await store.settle(due[1], 10_000)
    clock.now += 10_000
    assert await store.due_webhooks(9, 30_000) == [replace(due[1], attempt=2)]
    await store.settle(due[1], None)
    clock.now += 30_000
    assert await store.due_webhooks(9, 30_000) == [replace(due[1], attempt=3)], "the deliverer died at it"


async def test_webhook_that_is_not_settled_keeps_its_job(store: JobStore, clock: Clock) -> None:
    await submit(store, "a", webhook="https://x.org", ttl_ms=10)
    clock.now += 10
    await store.expire()
    assert await store.clean() == 0
    (due,) = await store.due_webhooks(9, 30_000)
    await store.settle(due, None)

    assert await store.clean() == 1
