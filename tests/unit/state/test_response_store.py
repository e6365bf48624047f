"""The store of responses, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptoss_bento.state.migrations import MIGRATIONS, migrate, open_database
from gptoss_bento.state.response import NewResponse, ResponseStatus, StoredItem
from gptoss_bento.state.response_store import (
    WORKER_ENDED,
    ResponseExistsError,
    ResponseStore,
    UnknownItemError,
    UnknownResponseError,
)
from gptoss_bento.state.schema import RESPONSE_EVENTS, RESPONSE_ITEMS, RESPONSES
from gptoss_bento.state.store import JobStore
from gptoss_bento.state.worker_identity import WorkerIdentity
from tests.stores import Clock
from tests.unit.state.stored import submit

TTL_MS = 1000
W = "worker"


def new(response_id: str = "resp_1", owner: str = "alice", previous: str | None = None, **fields: Any) -> NewResponse:
    text = json.dumps({"id": response_id, "status": "in_progress"})
    made = NewResponse(owner, response_id, text, items(f"{response_id}-in"), previous, W)
    return replace(made, **fields)


def items(*ids: str) -> list[StoredItem]:
    return [StoredItem(each, json.dumps({"id": each})) for each in ids]


def ids(texts: Sequence[str]) -> list[str]:
    return [json.loads(text)["id"] for text in texts]


async def answered(store: ResponseStore, response: NewResponse) -> int:
    row = await store.create(response, TTL_MS)
    final = json.dumps({"id": response.id, "status": "completed"})
    output = items(f"{response.id}-out")
    assert await store.finish(row, ResponseStatus.COMPLETED, final, output)
    return row


@pytest.fixture
def responses(store: JobStore, clock: Clock) -> ResponseStore:
    return ResponseStore(store._database, clock)


async def test_response_is_found_again_with_its_output(responses: ResponseStore) -> None:
    row = await responses.create(new(), TTL_MS)
    running = await responses.get("alice", "resp_1")
    assert running
    assert (running.status, json.loads(running.body)["output"]) == (ResponseStatus.IN_PROGRESS, [])
    final = '{"id":"resp_1","status":"completed","text":"\\u0000 é"}'
    assert await responses.finish(row, ResponseStatus.COMPLETED, final, items("a", "b"))

    found = await responses.get("alice", "resp_1")
    assert found
    assert found.status is ResponseStatus.COMPLETED
    assert json.loads(found.body) == {**json.loads(final), "output": [{"id": "a"}, {"id": "b"}]}


async def test_response_of_a_used_id_is_refused_to_its_owner_alone(responses: ResponseStore, store: JobStore) -> None:
    await store.renew_lease(WorkerIdentity(W, "machine", 1, 0))
    await responses.create(new(), TTL_MS)
    with pytest.raises(ResponseExistsError):
        await responses.create(new(), TTL_MS)

    await responses.create(new(owner="bob"), TTL_MS)


@pytest.mark.parametrize("end", [ResponseStatus.FAILED, ResponseStatus.CANCELLED, "expired", "lost"])
async def test_id_of_a_response_without_an_answer_may_be_used_again(
    responses: ResponseStore, store: JobStore, clock: Clock, end: str
) -> None:
    if end != "lost":
        await store.renew_lease(WorkerIdentity(W, "machine", 1, 0))
    first = await responses.create(new(), TTL_MS)
    if end == "expired":
        clock.now += TTL_MS
    elif end != "lost":
        await responses.finish(first, ResponseStatus(end), "{}")
    second = await responses.create(new(), TTL_MS)

    assert not await responses.finish(first, ResponseStatus.COMPLETED, "{}", items("late"))
    assert await responses.finish(second, ResponseStatus.COMPLETED, "{}", items("out"))
    found = await responses.get("alice", "resp_1")
    assert found
    assert found.output == ('{"id": "out"}',)


async def test_finish_of_an_ended_response_changes_nothing(responses: ResponseStore) -> None:
    row = await answered(responses, new())
    before = await responses.get("alice", "resp_1")

    assert not await responses.finish(row, ResponseStatus.FAILED, "{}", items("late"))
    assert not await responses.append(row, 0, ["{}"])
    assert await responses.cancel("alice", "resp_1") == before
    assert await responses.get("alice", "resp_1") == before


async def test_history_has_the_items_of_all_earlier_responses(responses: ResponseStore) -> None:
    await answered(responses, new("one"))
    await answered(responses, new("two", previous="one"))
    await answered(responses, new("other", previous="one"))
    await responses.create(new("three", previous="two"), TTL_MS)

    status, texts = await responses.history("alice", "three")
    assert (status, ids(texts)) == (
        ResponseStatus.IN_PROGRESS,
        ["one-in", "one-out", "two-in", "two-out", "three-in"],
    )
    with pytest.raises(UnknownResponseError):
        await responses.history("alice", "four")
    with pytest.raises(UnknownResponseError):
        await responses.create(new("five", previous="four"), TTL_MS)


async def test_history_outlives_a_deleted_and_an_expired_response(responses: ResponseStore, clock: Clock) -> None:
    await answered(responses, new("one"))
    await answered(responses, new("two", previous="one"))
    clock.now += TTL_MS // 2
    await answered(responses, new("three", previous="two"))
    assert await responses.delete("alice", "one")
    clock.now += TTL_MS // 2

    assert await responses.get("alice", "one") is None
    assert await responses.get("alice", "two") is None
    assert await responses.clean() == 0
    assert len((await responses.history("alice", "three"))[1]) == 6
    clock.now += TTL_MS
    assert [await responses.clean() for _ in range(4)] == [1, 1, 1, 0]
    assert await _rows(responses) == [0, 0, 0]


async def _rows(responses: ResponseStore) -> list[int]:
    def counted(connection: sa.Connection) -> list[int]:
        tables = (RESPONSES, RESPONSE_ITEMS, RESPONSE_EVENTS)
        return [connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() for table in tables]

    return await responses._database.run(counted, writes=False)


async def test_input_items_are_listed_by_page(responses: ResponseStore) -> None:
    row = await responses.create(new(input=items(*"abcde")), TTL_MS)
    await responses.finish(row, ResponseStatus.COMPLETED, "{}", items("out"))

    async def page(**query: Any) -> tuple[str, bool]:
        found = await responses.input_items("alice", "resp_1", **query)
        return "".join(item.id for item in found.items), found.has_more

    assert await page(order="asc", limit=9) == ("abcde", False)
    assert await page(order="desc", limit=2) == ("ed", True)
    assert await page(order="desc", limit=3, after="d") == ("cba", False)
    assert await page(order="asc", limit=1, after="c") == ("d", True)
    with pytest.raises(UnknownItemError):
        await page(order="asc", limit=1, after="out")
    with pytest.raises(UnknownResponseError):
        await responses.input_items("bob", "resp_1", order="asc", limit=1)


async def test_items_are_found_by_their_ids(responses: ResponseStore, clock: Clock) -> None:
    await answered(responses, new("one"))
    await answered(responses, new("two", owner="bob"))

    assert await responses.items("alice", ["one-in", "one-out", "two-out", "x\0"]) == {
        "one-in": '{"id": "one-in"}',
        "one-out": '{"id": "one-out"}',
    }
    clock.now += TTL_MS
    assert await responses.items("alice", ["one-in"]) == {}


async def test_events_are_read_from_any_position(responses: ResponseStore) -> None:
    row = await responses.create(new(keeps_events=True), TTL_MS)
    assert await responses.append(row, 0, ["0", "1"])
    assert await responses.append(row, 0, ["0", "1", "2"]), "repeated, with one more"
    assert await responses.append(row, 1, ["1", "2"])
    assert await responses.finish(row, ResponseStatus.COMPLETED, "{}", (), ["3"])

    found = await responses.events("alice", "resp_1", 1)
    assert found
    assert (found[0].event_count, found[1]) == (4, ["1", "2", "3"])
    assert (await responses.events("alice", "resp_1", 9) or (None, ["?"]))[1] == []
    assert await responses.events("bob", "resp_1", 0) is None


async def test_queued_response_is_started_once(responses: ResponseStore) -> None:
    row = await responses.create(new(status=ResponseStatus.QUEUED), TTL_MS)

    assert await responses.start(row, '{"status":"in_progress"}')
    assert not await responses.start(row, "{}")
    assert (await responses.get("alice", "resp_1")).object == '{"status":"in_progress"}'  # type: ignore[union-attr]


async def test_cancelled_response_stays_cancelled(responses: ResponseStore) -> None:
    row = await responses.create(new(), TTL_MS)
    assert await responses.runs(row)

    cancelled = await responses.cancel("alice", "resp_1")
    assert cancelled
    assert json.loads(cancelled.body) == {"id": "resp_1", "status": "cancelled", "output": []}
    assert not await responses.runs(row)
    assert not await responses.finish(row, ResponseStatus.COMPLETED, "{}")
    assert await responses.cancel("alice", "unknown") is None


async def test_deleted_response_is_gone_and_its_id_free(responses: ResponseStore) -> None:
    row = await responses.create(new(), TTL_MS)
    assert not await responses.delete("bob", "resp_1")
    assert await responses.delete("alice", "resp_1")

    assert not await responses.delete("alice", "resp_1")
    assert not await responses.finish(row, ResponseStatus.COMPLETED, "{}")
    await responses.create(new(), TTL_MS)


@pytest.mark.parametrize("gone", ["deleted", "discarded", "forgotten", "replaced"])
async def test_hidden_response_gets_no_id_that_a_client_may_have_chosen(responses: ResponseStore, gone: str) -> None:
    row = await responses.create(new(), TTL_MS)
    chosen = [f"deleted {row}", f"deleted{row}", "deleted"]
    for each in chosen:
        await responses.create(new(each), TTL_MS)
    if gone == "deleted":
        assert await responses.delete("alice", "resp_1")
    elif gone == "discarded":
        await responses.discard(row)
    elif gone == "forgotten":
        await responses.forget(new())
    else:
        await responses.create(new(), TTL_MS)

    assert (await responses.get("alice", "resp_1") is None) == (gone != "replaced")
    for each in chosen:
        assert await responses.get("alice", each)


async def test_oldest_responses_beyond_an_owners_bound_are_evicted(responses: ResponseStore) -> None:
    for number in range(4):
        await answered(responses, new(f"a{number}"))
    await answered(responses, new("b0", owner="bob"))

    assert await responses.evict(4) == 0
    assert await responses.evict(1) == 3
    assert [await responses.get("alice", f"a{number}") is not None for number in range(4)] == [False] * 3 + [True]
    assert await responses.get("bob", "b0")


async def test_response_that_has_not_ended_is_neither_evicted_nor_cleaned_up(
    responses: ResponseStore, clock: Clock
) -> None:
    running = await responses.create(new("running"), TTL_MS)
    await responses.create(new("waiting", status=ResponseStatus.QUEUED, worker_id=None, request="{}"), TTL_MS)
    await answered(responses, new("ended"))
    await answered(responses, new("newest"))

    assert await responses.evict(1) == 1
    for response_id, is_there in (("running", True), ("waiting", True), ("ended", False), ("newest", True)):
        assert bool(await responses.get("alice", response_id)) is is_there
    assert await responses.evict(1) == 0
    clock.now += TTL_MS
    assert await responses.clean() == 3
    assert await responses.finish(running, ResponseStatus.COMPLETED, json.dumps({"id": "running"}))
    assert await responses.clean() == 1


async def test_response_of_a_worker_without_a_lease_fails(responses: ResponseStore, store: JobStore) -> None:
    await store.renew_lease(WorkerIdentity("alive", "machine", 1, 0))
    row = await responses.create(new("kept", worker_id="alive"), TTL_MS)
    await responses.create(new("lost"), TTL_MS)
    await answered(responses, new("ended"))

    assert await responses.fail_lost() == 1
    lost = await responses.get("alice", "lost")
    assert lost
    assert json.loads(lost.body)["error"] == {"code": "server_error", "message": WORKER_ENDED}
    assert lost.status is ResponseStatus.FAILED
    assert await responses.runs(row)


async def test_answer_of_a_worker_that_was_late_with_its_lease_counts(responses: ResponseStore) -> None:
    row, other = await responses.create(new(), TTL_MS), await responses.create(new("resp_2"), TTL_MS)
    assert await responses.fail_lost() == 2

    assert not await responses.append(row, 0, ["{}"])
    assert await responses.finish(row, ResponseStatus.COMPLETED, "{}", items("out"))
    assert not await responses.finish(row, ResponseStatus.COMPLETED, "{}", items("again"))
    assert not await responses.finish(other, ResponseStatus.FAILED, "{}")
    found = await responses.get("alice", "resp_1")
    assert found
    assert (found.status, found.output) == (ResponseStatus.COMPLETED, ('{"id": "out"}',))


async def test_responses_are_added_to_an_older_database(store: JobStore, clock: Clock) -> None:
    def as_it_was(connection: sa.Connection) -> None:
        for table in ("responses", "response_items", "response_events", "response_requests", "idempotency_keys"):
            connection.execute(sa.text(f"DROP TABLE {table}"))
        connection.execute(sa.text("UPDATE schema_version SET version = 4"))

    await store._database.run(as_it_was, writes=True)
    await migrate(store._database)

    await answered(ResponseStore(store._database, clock), new())


async def test_documented_way_back_to_schema_4_keeps_the_jobs(store: JobStore, clock: Clock) -> None:
    document = (Path(__file__).parents[3] / "docs" / "native-api.md").read_text()
    statements = document.partition("```sql\n")[2].partition("```")[0].split(";")
    await answered(ResponseStore(store._database, clock), new())
    await submit(store, "a")

    def go_back(connection: sa.Connection) -> None:
        for statement in statements[:-1]:
            connection.execute(sa.text(statement))

    await store._database.run(go_back, writes=True)
    await migrate(store._database, MIGRATIONS[:4])
    await migrate(store._database)
    assert await store.get("a")
    assert await ResponseStore(store._database, clock).get("alice", "resp_1") is None


OWNERS = ("alice", "bob")
IDS = ("r0", "r1", "r2")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(OWNERS),
        st.sampled_from(("answer", "continue", "delete", "cancel", "read")),
        st.sampled_from(IDS),
        st.sampled_from(IDS),
    ),
    max_size=25,
)


_ROUNDS = count()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(STEPS)
def test_owner_never_finds_what_another_has_made(tmp_path: Path, steps: list[Any]) -> None:
    """Two owners with the same ids: each sees what a store without the other would show."""
    asyncio.run(_compare(tmp_path, next(_ROUNDS), steps))


async def _compare(folder: Path, number: int, steps: list[Any]) -> None:
    """In the same files each time, with new owners: making them takes longest."""
    async with (
        open_database(None, folder / "both.sqlite3") as both,
        open_database(None, folder / "alice.sqlite3") as alice,
        open_database(None, folder / "bob.sqlite3") as bob,
    ):
        clock = Clock()
        shared = ResponseStore(both, clock)
        alone = {"alice": ResponseStore(alice, clock), "bob": ResponseStore(bob, clock)}
        for owner, *step in steps:
            of_round = f"{owner} {number}"
            assert await _done(shared, of_round, *step) == await _done(alone[owner], of_round, *step)


async def _done(store: ResponseStore, owner: str, step: str, one: str, other: str) -> object:
    try:
        match step:
            case "answer":
                await answered(store, new(one, owner))
            case "continue":
                await store.create(new(one, owner, previous=other), TTL_MS)
            case "delete":
                return await store.delete(owner, one)
            case "cancel":
                return await store.cancel(owner, one)
            case _:
                return await _all_readings(store, owner, one)
    except (ResponseExistsError, UnknownResponseError) as error:
        return type(error)
    return "done"


async def _all_readings(store: ResponseStore, owner: str, response_id: str) -> object:
    found = await store.get(owner, response_id), await store.events(owner, response_id, 0)
    named = await store.items(owner, [f"{each}-{part}" for each in IDS for part in ("in", "out")])
    listed = await store.input_items(owner, response_id, order="asc", limit=9) if found[0] else None
    return found, sorted(named), listed, await store.history(owner, response_id)
