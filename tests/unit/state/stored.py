"""Jobs to store in tests."""

from __future__ import annotations

from dataclasses import replace

from gptoss_bento.state.job import Claim, Job, NewJob
from gptoss_bento.state.store import JobStore

W = "worker"
NEW = NewJob("a", '{"prompt":"x"}', None, False, 600_000, 86_400_000, 1_800_000)


async def submit(store: JobStore, *ids: str, **fields: object) -> None:
    for job_id in ids:
        await store.submit(replace(NEW, id=job_id, **fields), 100)  # type: ignore[arg-type]


async def running(store: JobStore, job_id: str = "a", **fields: object) -> Claim:
    await submit(store, job_id, **fields)
    (claim,) = await store.claim(W, 1)
    return claim


async def found(store: JobStore, job_id: str = "a") -> Job:
    job = await store.get(job_id)
    assert job is not None
    return job
