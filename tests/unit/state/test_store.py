"""The store, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa

from gptoss_bento.bench.servers import free_port
from gptoss_bento.errors import ConfigurationError
from gptoss_bento.state import store as store_module
from gptoss_bento.state.job import Claim, Job, NewJob, Status
from gptoss_bento.state.store import JobStore, Place, QueueFullError, StoreUnavailableError, Webhook, open_store
from tests.stores import Clock

W = "worker"
NEW = NewJob("a", '{"prompt":"x"}', None, False, 600_000, 86_400_000, 1_800_000)
PLACE = Place(W, "here", 1, 0.5)
NOBODY_IS_GONE: Callable[[Place], bool] = lambda _: False  # noqa: E731


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


async def test_an_accepted_job_is_found_again(store: JobStore, clock: Clock) -> None:
    job = await store.submit(NEW, 1)

    assert job == await store.get("a")
    assert (job.status, job.queued_at, job.expires_at) == (Status.IN_QUEUE, clock.now, clock.now + 86_400_000)
    assert await store.get("b") is None


async def test_a_full_queue_takes_nothing_more(store: JobStore) -> None:
    await store.submit(NEW, 1)
    with pytest.raises(QueueFullError, match="1 jobs wait"):
        await store.submit(replace(NEW, id="b"), 1)

    assert await store.get("b") is None
    await store.claim(W, 1)
    await store.submit(replace(NEW, id="c"), 1)


async def test_first_in_first_out_low_priority_last(store: JobStore, clock: Clock) -> None:
    await submit(store, "low", low_priority=True)
    for job_id in "abc":
        clock.now += 1
        await submit(store, job_id)

    assert [claim.id for claim in await store.claim(W, 2)] == ["a", "b"]
    assert [claim.id for claim in await store.claim(W, 9)] == ["c", "low"]
    assert await store.claim(W, 9) == []


async def test_a_claim_has_what_a_run_needs(store: JobStore, clock: Clock) -> None:
    clock.now += 5
    claim = await running(store)

    assert claim == Claim("a", 1, W, NEW.input, 600_000, clock.now + 86_400_000)
    job = await found(store)
    assert (job.status, job.started_at, job.worker_id) == (Status.IN_PROGRESS, clock.now, W)
    assert not await store.waiting()


async def test_claims_at_the_same_time_never_meet(store: JobStore) -> None:
    await submit(store, *(f"j{i}" for i in range(40)))
    claimed = await asyncio.gather(*(store.claim(f"w{i}", 5) for i in range(12)))
    ids = [claim.id for claims in claimed for claim in claims]

    while more := await store.claim("late", 5):  # SKIP LOCKED may leave some to the next round
        ids += [claim.id for claim in more]
    assert sorted(ids) == sorted(f"j{i}" for i in range(40))


async def test_output_comes_back_in_order(store: JobStore) -> None:
    claim = await running(store)

    assert await store.append(claim, 0, ["1", "2"])
    assert await store.finish(claim, Status.COMPLETED, 2, ["3"])
    job, items = await store.output("a")
    assert job is not None
    assert (job.status, job.item_count, items) == (Status.COMPLETED, 3, ["1", "2", "3"])


async def test_a_repeated_write_adds_nothing(store: JobStore) -> None:
    claim = await running(store)

    assert await store.append(claim, 0, ["1", "2"])
    assert await store.append(claim, 0, ["1", "2"])
    assert (await found(store)).item_count == 2


async def test_a_job_that_has_not_completed_has_no_output(store: JobStore) -> None:
    claim = await running(store)
    await store.finish(claim, Status.FAILED, 0, ["1"], "why\0 \ud800")

    job, items = await store.output("a")
    assert job is not None
    assert (job.error, items) == ("why ?", [])


async def test_each_item_is_taken_once(store: JobStore) -> None:
    claim = await running(store)
    await store.append(claim, 0, ["1", "2"])
    taken = await asyncio.gather(*(store.take("a") for _ in range(5)))

    assert sorted(items for _, items in taken) == [[], [], [], [], ["1", "2"]]
    await store.finish(claim, Status.COMPLETED, 2, ["3"])
    job, items = await store.take("a")
    assert job is not None
    assert (job.status, items) == (Status.COMPLETED, ["3"])
    assert (await store.take("a"))[1] == []
    assert (await store.output("a"))[1] == ["1", "2", "3"]


@pytest.mark.parametrize("run", [False, True])
async def test_a_cancelled_job_stays_cancelled(store: JobStore, run: bool) -> None:
    await submit(store, "a")
    claims = await store.claim(W, 1) if run else []

    job = await store.cancel("a")
    assert job is not None
    assert job.status is Status.CANCELLED
    for claim in claims:
        assert not await store.append(claim, 0, ["1"])
        assert not await store.finish(claim, Status.COMPLETED, 0, ["1"])
    assert await store.claim(W, 1) == []
    assert (await found(store)).status is Status.CANCELLED


async def test_cancelling_an_ended_job_changes_nothing(store: JobStore) -> None:
    claim = await running(store)
    await store.finish(claim, Status.COMPLETED)
    before = await found(store)

    assert await store.cancel("a") == before
    assert await store.cancel("unknown") is None


async def test_purging_takes_what_waits_alone(store: JobStore) -> None:
    await running(store, "running")
    await submit(store, "a", "b")

    assert sorted(await store.purge()) == ["a", "b"]
    assert (await found(store, "running")).status is Status.IN_PROGRESS
    assert (await found(store, "a")).status is Status.CANCELLED
    assert await store.purge() == []


@pytest.mark.parametrize("status", [Status.FAILED, Status.TIMED_OUT])
async def test_a_failed_job_can_be_run_again(store: JobStore, clock: Clock, status: Status) -> None:
    claim = await running(store)
    await store.finish(claim, status, 0, ["1"], "why")
    await store.take("a")
    await submit(store, "b")
    clock.now += 10
    job, again = await store.retry("a", 100)

    assert again
    assert job is not None
    assert (job.status, job.retries, job.error, job.item_count, job.delivered) == (Status.IN_QUEUE, 1, None, 0, 0)
    assert (job.started_at, job.ended_at, job.queued_at) == (None, None, clock.now)
    claims = await store.claim(W, 9)
    assert [(claim.id, claim.attempt) for claim in claims] == [("b", 1), ("a", 2)], "it queues anew"
    assert not await store.finish(claim, Status.COMPLETED), "the first run has nothing to say any more"


async def test_other_jobs_cannot_be_run_again(store: JobStore) -> None:
    assert await store.retry("a", 1) == (None, False)
    claim = await running(store)
    assert await store.retry("a", 1) == (await found(store), False)
    await store.finish(claim, Status.FAILED)
    await submit(store, "b")
    with pytest.raises(QueueFullError):
        await store.retry("a", 1)


# time


async def test_a_result_is_kept_for_its_time(store: JobStore, clock: Clock) -> None:
    claim = await running(store, result_ttl_ms=1000)
    clock.now += 50
    await store.finish(claim, Status.COMPLETED)

    clock.now += 999
    assert await store.get("a")
    clock.now += 1
    assert await store.get("a") is None
    assert await store.cancel("a") is None
    assert await store.retry("a", 9) == (None, False)
    assert await store.take("a") == (None, [])


async def test_a_result_is_not_kept_beyond_the_jobs_time_to_live(store: JobStore, clock: Clock) -> None:
    claim = await running(store, ttl_ms=500)
    await store.finish(claim, Status.COMPLETED)
    clock.now += 500

    assert await store.get("a") is None


@pytest.mark.parametrize("run", [False, True])
async def test_a_job_over_its_time_to_live_is_stopped_and_forgotten(store: JobStore, clock: Clock, run: bool) -> None:
    await submit(store, "a", ttl_ms=500)
    claims = await store.claim(W, 1) if run else []
    assert await store.expire() == []
    clock.now += 500

    assert await store.claim(W, 1) == []
    assert await store.get("a") is None
    assert await store.expire() == ["a"]
    assert await store.owned(claims) == set()
    assert (await store.snapshot("a"))[0].status is Status.TIMED_OUT  # type: ignore[union-attr]


async def test_a_shortened_result_is_forgotten_earlier(store: JobStore, clock: Clock) -> None:
    claim = await running(store)
    await store.finish(claim, Status.COMPLETED)
    await store.shorten("a", 100)
    await store.shorten("a", 10**12)
    clock.now += 100

    assert await store.get("a") is None


async def test_shortening_does_not_stop_a_running_job(store: JobStore, clock: Clock) -> None:
    claim = await running(store)
    await store.shorten("a", 100)
    clock.now += 1000
    assert await store.get("a")
    await store.finish(claim, Status.COMPLETED)
    clock.now += 100

    assert await store.get("a") is None


async def test_what_is_over_is_deleted_but_counted(store: JobStore, clock: Clock) -> None:
    for job_id, status in [("a", Status.COMPLETED), ("b", Status.FAILED), ("c", Status.TIMED_OUT)]:
        await store.finish(await running(store, job_id), status, 0, ["1"])
    await store.retry("b", 9)
    (claim,) = await store.claim(W, 1)
    await store.finish(claim, Status.FAILED)
    await submit(store, "d")
    before = await store.counts()
    assert (before.completed, before.failed, before.in_queue, before.in_progress, before.retried) == (1, 2, 1, 0, 1)

    assert await store.clean() == 0
    clock.now += 1_800_000
    assert await store.clean() == 3
    assert await store.counts() == before
    assert await store.snapshot("a") == (None, [])
    assert await store.get("d")


# workers


async def test_a_dead_workers_job_runs_again_once(store: JobStore, clock: Clock) -> None:
    await store.beat(PLACE)
    first = await running(store)
    await store.append(first, 0, ["1"])
    assert await store.recover(1000, NOBODY_IS_GONE) == []
    clock.now += 1001

    assert await store.recover(1000, NOBODY_IS_GONE) == ["a"]
    job = await found(store)
    assert (job.status, job.retries, job.item_count) == (Status.IN_QUEUE, 1, 0)
    assert not await store.finish(first, Status.COMPLETED, 1), "a worker that was only slow ends nothing"
    (second,) = await store.claim("other", 1)
    assert await store.recover(1000, NOBODY_IS_GONE) == ["a"], "it never said that it lives"
    job = await found(store)
    assert (job.status, job.error) == (Status.FAILED, "The server stopped twice while the job ran.")
    assert not await store.finish(second, Status.COMPLETED)


async def test_output_that_somebody_saw_is_not_generated_again(store: JobStore) -> None:
    claim = await running(store)
    await store.append(claim, 0, ["1"])
    await store.take("a")

    assert await store.recover(1000, NOBODY_IS_GONE) == ["a"]
    job = await found(store)
    assert job.status is Status.FAILED
    assert "streamed" in str(job.error)


async def test_a_worker_known_to_be_gone_is_not_waited_for(store: JobStore) -> None:
    await store.beat(PLACE)
    await store.beat(PLACE)
    await running(store)

    assert await store.recover(1000, lambda place: place == PLACE) == ["a"]


async def test_a_living_worker_keeps_its_jobs(store: JobStore, clock: Clock) -> None:
    await store.beat(PLACE)
    claim = await running(store)
    clock.now += 900
    await store.beat(PLACE)
    clock.now += 900

    assert await store.recover(1000, NOBODY_IS_GONE) == []
    assert await store.owned([claim]) == {"a"}


async def test_a_worker_that_leaves_frees_its_jobs(store: JobStore) -> None:
    await store.beat(PLACE)
    claim = await running(store)
    assert await store.interrupt(claim) == ["a"]
    assert await store.interrupt(claim) == []
    await store.leave(W)

    assert (await found(store)).status is Status.IN_QUEUE


async def test_a_job_that_is_handed_back_may_be_interrupted_once_more(store: JobStore) -> None:
    await store.beat(PLACE)
    for _ in range(3):
        assert await store.interrupt(await running_again(store), counts=False) == ["a"]
        assert (await found(store)).status is Status.IN_QUEUE
    assert await store.interrupt(await running_again(store)) == ["a"]
    assert (await found(store)).status is Status.IN_QUEUE
    assert await store.interrupt(await running_again(store)) == ["a"]
    assert (await found(store)).status is Status.FAILED


async def running_again(store: JobStore) -> Claim:
    """The job `a`, submitted if it is not there yet."""
    if await store.get("a") is None:
        await submit(store, "a")
    (claim,) = await store.claim(W, 1)
    return claim


async def test_a_handed_back_job_whose_output_was_seen_cannot_begin_again(store: JobStore) -> None:
    claim = await running_again(store)
    await store.append(claim, 0, ["1"])
    await store.take("a")

    await store.interrupt(claim, counts=False)
    assert (await found(store)).status is Status.FAILED


async def test_progress_tells_changes(store: JobStore) -> None:
    await submit(store, "a")
    seen = [await store.progress(["a", "b"])]
    (claim,) = await store.claim(W, 1)
    seen.append(await store.progress(["a"]))
    await store.append(claim, 0, ["1"])
    seen.append(await store.progress(["a"]))

    assert [list(progress) for progress in seen] == [["a"]] * 3
    assert len({progress["a"] for progress in seen}) == 3


# webhooks


async def test_the_end_makes_a_webhook_due_until_it_is_settled(store: JobStore, clock: Clock) -> None:
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


async def test_a_job_is_not_deleted_before_its_webhook_is_settled(store: JobStore, clock: Clock) -> None:
    await submit(store, "a", webhook="https://x.org", ttl_ms=10)
    clock.now += 10
    await store.expire()
    assert await store.clean() == 0
    (due,) = await store.due_webhooks(9, 30_000)
    await store.settle(due, None)

    assert await store.clean() == 1


# the database


async def test_a_store_is_opened_again_with_its_jobs(store: JobStore, store_url: str, clock: Clock) -> None:
    await submit(store, "a")
    async with open_store(store_url, Path("unused"), clock) as again:
        assert await again.get("a") == await store.get("a")


async def test_migrations_run_once_and_in_order(store: JobStore) -> None:
    ran: list[str] = []
    steps = [*store_module.MIGRATIONS, lambda _: ran.append("second"), lambda _: ran.append("third")]
    await store.migrate(steps)
    await store.migrate(steps)

    assert ran == ["second", "third"]
    with pytest.raises(ConfigurationError, match=r"schema version 6, made by a newer .* knows 4"):
        await store.migrate()


async def test_an_old_store_becomes_as_a_new_one(store: JobStore) -> None:
    def columns(connection: sa.Connection) -> list[tuple[str, str, bool]]:
        found = sa.inspect(connection).get_columns("jobs")
        return sorted((column["name"], str(column["type"]), column["nullable"]) for column in found)

    def as_it_was(connection: sa.Connection) -> None:
        connection.execute(sa.text("ALTER TABLE jobs DROP COLUMN refused"))
        connection.execute(sa.text("UPDATE schema_version SET version = 1"))

    new = await store._database.run(columns, writes=False)
    await submit(store, "a")
    await store._database.run(as_it_was, writes=True)
    await store.migrate()

    assert await store._database.run(columns, writes=False) == new
    assert (job := await store.get("a"))
    assert job.refused is False


async def test_a_failed_migration_changes_nothing(store: JobStore) -> None:
    def make_table(connection: sa.Connection) -> None:
        connection.execute(sa.text("CREATE TABLE half (x INTEGER)"))

    def fail(connection: sa.Connection) -> None:
        make_table(connection)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await store.migrate([*store_module.MIGRATIONS, fail])
    await store.migrate([*store_module.MIGRATIONS, make_table])


async def test_many_at_once_are_served(store: JobStore) -> None:
    await asyncio.gather(*(submit(store, f"j{i}") for i in range(60)))
    jobs = await asyncio.gather(*(store.get(f"j{i}") for i in range(60)))

    assert all(jobs)


async def test_sqlite_waits_for_other_processes(tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / "jobs.sqlite3"
    async with open_store(None, file, clock) as one, open_store(None, file, clock) as other:
        await asyncio.gather(
            *(submit(store, f"{name}{i}") for i in range(20) for name, store in [("a", one), ("b", other)])
        )
        assert (await one.counts()).in_queue == 40


async def test_a_full_disk_is_a_clear_error_and_passes(tmp_path: Path, clock: Clock) -> None:
    async with open_store(None, tmp_path / "jobs.sqlite3", clock) as store:
        await submit(store, "a")
        engine = store._database.engine  # type: ignore[attr-defined]
        with engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        sa.event.listen(engine, "checkout", lambda c, *_: _limit_pages(c, pages))
        with pytest.raises(StoreUnavailableError, match="full"):
            await submit(store, "b", input="x" * 100_000)
        sa.event.listen(engine, "checkout", lambda c, *_: _limit_pages(c, 10**6))
        await submit(store, "b", input="x" * 100_000)
        assert await store.get("a")


def _limit_pages(connection: sqlite3.Connection, pages: int) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA max_page_count = {pages}")
    cursor.close()


async def test_an_unreachable_database_is_a_clear_error() -> None:
    url = f"postgresql+asyncpg://me:secret@127.0.0.1:{free_port()}/x"
    with pytest.raises(StoreUnavailableError) as caught:
        async with open_store(url, Path("unused")):
            pass
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["not a url secret", "mysql://me:secret@host/db", "postgresql+psycopg2://secret@h/db"])
async def test_a_wrong_url_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ConfigurationError, match="JOB_STORE_URL") as caught:
        async with open_store(url, Path("unused")):
            pass
    assert "secret" not in str(caught.value)


async def test_an_owner_has_only_so_many_jobs_that_have_not_ended(store: JobStore) -> None:
    for job_id, owner in (("a", "alice"), ("b", "alice"), ("c", "bob")):
        await store.submit(replace(NEW, id=job_id, owner=owner), 100, 2)
    (claim, *_) = await store.claim(W, 3)
    with pytest.raises(QueueFullError, match="This key may have 2 jobs at once"):
        await store.submit(replace(NEW, id="d", owner="alice"), 100, 2)

    assert (claim.id, claim.owner) == ("a", "alice")
    await store.finish(claim, Status.COMPLETED)
    await store.submit(replace(NEW, id="d", owner="alice"), 100, 2)


@pytest.fixture
async def workers(store_url: str, clock: Clock) -> AsyncIterator[tuple[JobStore, JobStore]]:
    """The same store as two worker processes have it open."""
    async with open_store(store_url, Path("unused"), clock) as one, open_store(store_url, Path("unused"), clock) as two:
        yield one, two


async def accepted(asked: Iterable[Coroutine[Any, Any, object]]) -> int:
    """How many of these came in; the others were refused."""
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(each, QueueFullError) for each in answers if isinstance(each, BaseException)), answers
    return sum(not isinstance(each, BaseException) for each in answers)


@pytest.mark.parametrize(("free", "in_progress"), [(None, 0), (W, 1)])
async def test_workers_that_accept_at_the_same_time_keep_to_a_keys_jobs(
    workers: tuple[JobStore, JobStore], free: str | None, in_progress: int
) -> None:
    new = [replace(NEW, id=f"j{i}", owner="alice") for i in range(30)]
    assert await accepted(workers[i % 2].submit(job, 100, 1, free) for i, job in enumerate(new)) == 1
    counts = await workers[0].counts()
    assert (counts.in_queue, counts.in_progress) == (1 - in_progress, in_progress)


async def test_workers_that_accept_at_the_same_time_keep_to_the_length_of_the_queue(
    workers: tuple[JobStore, JobStore],
) -> None:
    new = [replace(NEW, id=f"j{i}") for i in range(30)]
    assert await accepted(workers[i % 2].submit(job, 5) for i, job in enumerate(new)) == 5
    assert await workers[1].queue_length() == 5


@pytest.mark.parametrize(("most_waiting", "most_of_owner", "queued"), [(5, None, 5), (100, 1, 1)])
async def test_jobs_that_are_run_again_at_the_same_time_keep_to_both(
    workers: tuple[JobStore, JobStore], most_waiting: int, most_of_owner: int | None, queued: int
) -> None:
    ids = [f"j{i}" for i in range(20)]
    await submit(workers[0], *ids, owner="alice")
    for claim in await workers[0].claim(W, len(ids)):
        await workers[0].finish(claim, Status.FAILED)
    asked = (workers[i % 2].retry(job_id, most_waiting, most_of_owner) for i, job_id in enumerate(ids))
    assert await accepted(asked) == queued
    assert await workers[1].queue_length() == queued


async def test_who_stands_still_while_it_accepts_a_job_holds_up_the_others_for_a_while_only(
    store: JobStore, store_url: str
) -> None:
    """As a process that was stopped, or whose machine is gone without a word to the database."""
    if store_url.startswith("sqlite"):
        return  # waits for 10 s, and one that was stopped is on this machine
    still = await asyncpg.connect(store_url.replace("+asyncpg", ""))
    await still.execute("BEGIN")
    alone = str(store_module._ALONE).replace(":owner", "$1").replace(f"'{store_module._ALONE_TIMEOUT_MS}'", "'500'")
    await still.fetch(alone, "alice")
    alices = replace(NEW, owner="alice")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(store.submit(alices, 9, 1), 0.2)
    await store.submit(replace(NEW, id="b", owner="bob"), 9, 1)
    await asyncio.wait_for(store.submit(alices, 9, 1), 5)
    assert still.is_closed()


async def test_a_store_from_before_there_were_owners_gets_the_column(store: JobStore) -> None:
    def drop(connection: sa.Connection) -> None:
        connection.execute(sa.text("ALTER TABLE jobs DROP COLUMN owner"))
        connection.execute(sa.text("UPDATE schema_version SET version = 1"))

    await store._database.run(drop, writes=True)
    await store.migrate()

    await store.submit(replace(NEW, owner="alice"), 1)
    assert (await store.claim(W, 1))[0].owner == "alice"


async def test_a_store_from_before_limits_were_kept_gets_the_column(store: JobStore) -> None:
    def drop(connection: sa.Connection) -> None:
        connection.execute(sa.text("ALTER TABLE jobs DROP COLUMN key_limits"))
        connection.execute(sa.text("UPDATE schema_version SET version = 3"))

    await submit(store, "a", owner="alice")
    await store._database.run(drop, writes=True)
    await store.migrate()

    await submit(store, "b", owner="alice", key_limits='{"jobs":1}')
    assert [claim.key_limits for claim in await store.claim(W, 2)] == [None, '{"jobs":1}']
    assert (await found(store, "b")).key_limits == '{"jobs":1}'
