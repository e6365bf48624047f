"""What a key's files count as, on both databases."""

from __future__ import annotations

import asyncio

import pytest

from gptoss_bento.state.batch import BatchClaim, BatchEnd, BatchStatus, NewBatch
from gptoss_bento.state.batch_store import BatchStore
from gptoss_bento.state.file import FileLimits, NewFile
from gptoss_bento.state.file_store import FilesFullError, FileStore
from gptoss_bento.state.store import JobStore
from gptoss_bento.state.worker_identity import WorkerIdentity
from tests.stores import Clock

LIMITS = FileLimits(10, 100)


@pytest.fixture
async def files(store: JobStore, clock: Clock) -> FileStore:
    await store.renew_lease(WorkerIdentity("one", "machine", 1, 0))
    return FileStore(store.database, clock)


def new_file(name: str, size: int) -> NewFile:
    return NewFile("alice", name, "batch", "in", size, name, 10**9)


async def test_file_that_arrives_counts_as_what_is_reserved_for_it(files: FileStore) -> None:
    await files.begin(new_file("a", 60), "one", LIMITS)
    with pytest.raises(FilesFullError, match="FILES_KEY_MAX_BYTES"):
        await files.begin(new_file("b", 41), "one", LIMITS)
    await files.begin(new_file("b", 40), "one", LIMITS)
    with pytest.raises(FilesFullError, match="FILES_KEY_MAX_BYTES"):
        await files.complete(new_file("b", 41), "one", LIMITS)
    await files.complete(new_file("a", 10), "one", LIMITS)

    assert (await files.complete(new_file("b", 90), "one", LIMITS)).bytes == 90


async def test_input_that_was_deleted_counts_until_its_batch_has_ended(files: FileStore, clock: Clock) -> None:
    batches = BatchStore(files.database, clock)
    await files.begin(new_file("a", 60), "one", LIMITS)
    await files.complete(new_file("a", 60), "one", LIMITS)
    await batches.create(NewBatch("alice", "batch_1", "/v1/completions", "a", None, None, 86_400, 3600, 7200), 100)
    await files.delete("alice", "a")
    with pytest.raises(FilesFullError, match="FILES_KEY_MAX_BYTES"):
        await files.begin(new_file("b", 41), "one", LIMITS)
    claimed = await batches.claim("one")
    assert claimed
    assert await batches.finish(BatchClaim(claimed.id, claimed.attempt), BatchEnd(BatchStatus.FAILED))

    await files.begin(new_file("b", 100), "one", LIMITS)


async def test_concurrent_files_reserve_no_more_than_their_key_may_have(files: FileStore) -> None:
    begins = (files.begin(new_file(f"file {number}", 60), "one", LIMITS) for number in range(8))
    ends = await asyncio.gather(*begins, return_exceptions=True)

    assert [type(end) for end in ends if end] == [FilesFullError] * 7
