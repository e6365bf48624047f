"""The store of batches, on SQLite and on PostgreSQL: claims, and what a lost one may not do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gptoss_bento.state.batch import BatchClaim, BatchEnd, BatchStatus, NewBatch, OutputFile, StoredBatch
from gptoss_bento.state.batch_store import BatchStore
from gptoss_bento.state.file import FileLimits, NewFile
from gptoss_bento.state.file_store import FileStore
from gptoss_bento.state.store import JobStore
from gptoss_bento.state.worker_identity import WorkerIdentity
from tests.stores import Clock

LIMITS = FileLimits(100, 10**6)


def stored_batch(**fields: Any) -> StoredBatch:
    """A batch that waits."""
    absent = dict.fromkeys(StoredBatch.__dataclass_fields__)
    made = {"status": BatchStatus.VALIDATING, "endpoint": "/v1/completions", "attempt": 1, "id": "batch_1"}
    return StoredBatch(**{**absent, **made, **fields})


@pytest.fixture
async def batches(store: JobStore, clock: Clock) -> BatchStore:
    for name in ("one", "two"):
        await store.renew_lease(WorkerIdentity(name, "machine", 1, 0))
    files = FileStore(store.database, clock)
    for owner in ("alice", "bob"):
        new = NewFile(owner, f"file-{owner}", "batch", "in", 1, f"file-{owner}", 10**9)
        await files.begin(new, "one", LIMITS)
        await files.complete(new, "one", LIMITS)
    return BatchStore(store.database, clock)


async def created(batches: BatchStore, batch_id: str, owner: str = "alice") -> StoredBatch:
    new = NewBatch(owner, batch_id, "/v1/completions", f"file-{owner}", None, None, 86_400, 3600, 7200)
    return await batches.create(new, 100)


def claim_of(batch: StoredBatch | None) -> BatchClaim:
    assert batch
    return BatchClaim(batch.id, batch.attempt)


async def test_batches_of_owners_that_have_no_more_runs_are_not_claimed(batches: BatchStore) -> None:
    await created(batches, "a")
    assert not await batches.waits(["alice"])
    assert await batches.claim("one", ["alice"]) is None
    await created(batches, "b", "bob")
    assert await batches.waits(["alice"])
    claimed = await batches.claim("one", ["alice"])

    assert claim_of(claimed).id == "b"


async def test_worker_finds_what_it_has_claimed_and_not_ended(batches: BatchStore) -> None:
    for name in ("a", "b", "c"):
        await created(batches, name)
    first, second = claim_of(await batches.claim("one")), claim_of(await batches.claim("one"))
    other = claim_of(await batches.claim("two"))
    await batches.finish(first, BatchEnd(BatchStatus.FAILED))

    assert await batches.claims_of("one") == [second]
    assert await batches.claims_of("two") == [other]


async def test_claims_are_fair_among_owners(batches: BatchStore) -> None:
    for batch_id, owner in (("a1", "alice"), ("a2", "alice"), ("b1", "bob")):
        await created(batches, batch_id, owner)

    claimed = [claim_of(await batches.claim("one")).id for _ in range(3)]
    assert claimed == ["a1", "b1", "a2"]
    assert await batches.waits() is False
    assert await batches.claim("two") is None


async def test_batch_has_the_id_of_the_file_that_was_found(batches: BatchStore) -> None:
    """PostgreSQL's text holds no NUL; it is left out of the id that is looked for."""
    new = NewBatch("alice", "batch_1", "/v1/completions", "file-alice\0", None, None, 86_400, 3600, 7200)

    assert (await batches.create(new, 100)).input_file_id == "file-alice"


async def test_claims_of_two_workers_never_have_the_same_batch(batches: BatchStore) -> None:
    ids = [f"b{number}" for number in range(8)]
    for batch_id in ids:
        await created(batches, batch_id)

    claims = await asyncio.gather(*(batches.claim(("one", "two")[number % 2]) for number in range(8)))
    while any(claim is None for claim in claims):  # PostgreSQL skips what another transaction looks at
        claims = [claim or await batches.claim("one") for claim in claims]
    assert sorted(claim_of(claim).id for claim in claims) == ids


async def test_claim_that_was_lost_changes_nothing(batches: BatchStore, store: JobStore) -> None:
    await created(batches, "a")
    lost = claim_of(await batches.claim("one"))
    await store.release_lease("one")
    newer = claim_of(await batches.claim("two"))
    assert newer.attempt == lost.attempt + 1

    assert await batches.start(lost, 1, None) is False
    await batches.report(lost, 9, 9)
    await batches.give_back(lost)
    assert await batches.status(lost) is None
    output = OutputFile("file-x", "x", 1, "x", is_error=False)
    assert await batches.finish(lost, BatchEnd(BatchStatus.COMPLETED, files=[output])) is False
    assert await batches.start(newer, 1, None)
    found = await batches.get("alice", "a")
    assert (found.status, found.completed, found.output_file_id) == (BatchStatus.IN_PROGRESS, 0, None)


async def test_end_makes_the_files_visible_with_it(batches: BatchStore, store: JobStore, clock: Clock) -> None:
    await created(batches, "a")
    claim = claim_of(await batches.claim("one"))
    await batches.start(claim, 2, "m")
    files = [OutputFile("file-o", "o", 1, "o", is_error=False), OutputFile("file-e", "e", 1, "e", is_error=True)]
    assert await batches.finish(claim, BatchEnd(BatchStatus.COMPLETED, 1, 1, files=files))
    assert await batches.finish(claim, BatchEnd(BatchStatus.COMPLETED, 1, 1, files=files)) is False

    found = await batches.get("alice", "a")
    assert (found.output_file_id, found.error_file_id, found.completed_at) == ("file-o", "file-e", clock.now // 1000)
    file = await FileStore(store.database, clock).get("alice", "file-o")
    assert (file.purpose, file.expires_at) == ("batch_output", clock.now + 3_600_000)


async def test_cancellation_after_the_last_line_counts(batches: BatchStore) -> None:
    await created(batches, "a")
    claim = claim_of(await batches.claim("one"))
    await batches.start(claim, 1, None)
    await batches.finalize(claim)
    cancelled, was_unfinished = await batches.cancel("alice", "a")
    assert (cancelled.status, was_unfinished) == (BatchStatus.CANCELLING, True)
    await batches.finish(claim, BatchEnd(BatchStatus.COMPLETED, 1))

    assert (await batches.get("alice", "a")).status is BatchStatus.CANCELLED


async def test_batches_go_when_they_have_been_kept_long_enough(batches: BatchStore, clock: Clock) -> None:
    await created(batches, "a")
    await created(batches, "b")
    claim = claim_of(await batches.claim("one"))
    await batches.finish(claim, BatchEnd(BatchStatus.FAILED))
    clock.now += 86_400_000 + 7_200_000

    assert await batches.clean() == 1
    assert [batch.id for batch in (await batches.page("alice", 10)).batches] == ["b"]  # it has not ended
