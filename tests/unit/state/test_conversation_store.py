"""The store of conversations, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptoss_bento.state.conversation import ConversationLockedError, StoredConversation, UnknownConversationError
from gptoss_bento.state.conversation_store import ConversationStore, ItemExistsError, UnknownConversationItemError
from gptoss_bento.state.database import Database
from gptoss_bento.state.migrations import migrate, open_database
from gptoss_bento.state.response import ResponseStatus, StoredItem
from gptoss_bento.state.response_store import ResponseStore
from gptoss_bento.state.schema import CONVERSATION_ITEMS, CONVERSATIONS
from gptoss_bento.state.store import JobStore
from tests.stores import Clock
from tests.unit.state.test_response_store import TTL_MS, ids, items, new

CONV = "conv_1"


@dataclass
class Stores:
    """Of one database."""

    database: Database
    clock: Clock

    def __post_init__(self) -> None:
        self.conversations = ConversationStore(self.database, self.clock)
        self.responses = ResponseStore(self.database, self.clock)

    async def create(self, *item_ids: str, owner: str = "alice", conversation_id: str = CONV) -> None:
        made = StoredConversation(conversation_id, self.clock(), "{}")
        await self.conversations.create(owner, made, items(*item_ids), TTL_MS)

    async def add(self, *item_ids: str, owner: str = "alice", conversation_id: str = CONV) -> None:
        seen, _ = await self.conversations.history(owner, conversation_id)
        await self.conversations.add(seen, items(*item_ids), TTL_MS)

    async def started(self, response_id: str = "resp_1", owner: str = "alice", conversation_id: str = CONV) -> int:
        seen, _ = await self.conversations.history(owner, conversation_id)
        return await self.responses.create(new(response_id, owner, conversation=seen), TTL_MS)

    async def end(
        self, row: int, *output: str, status: ResponseStatus = ResponseStatus.COMPLETED, response_id: str = "resp_1"
    ) -> bool:
        return await self.responses.finish(row, status, json.dumps({"id": response_id}), items(*output))

    async def ids(self, owner: str = "alice", conversation_id: str = CONV) -> list[str]:
        _, texts = await self.conversations.history(owner, conversation_id)
        return ids(texts)

    async def rows(self, table: sa.Table) -> int:
        def counted(connection: sa.Connection) -> int:
            return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())

        return await self.database.run(counted, writes=False)


@pytest.fixture
def stores(store: JobStore, clock: Clock) -> Stores:
    return Stores(store._database, clock)


async def test_conversation_is_found_with_its_items_by_its_owner_alone(stores: Stores) -> None:
    await stores.create("a", "b")

    assert await stores.conversations.get("alice", CONV) == StoredConversation(CONV, stores.clock(), "{}")
    assert await stores.ids() == ["a", "b"]
    for reading in (stores.conversations.get("bob", CONV), stores.conversations.history("bob", CONV)):
        with pytest.raises(UnknownConversationError):
            await reading
    assert await stores.conversations.items("bob", ["a"]) == {}
    assert await stores.conversations.items("alice", ["a", "c"]) == {"a": '{"id": "a"}'}


async def test_items_are_added_once_and_deleted(stores: Stores) -> None:
    await stores.create("a")
    await stores.add("b", "c")
    with pytest.raises(ItemExistsError, match=r"^c$"):
        await stores.add("d", "c")
    await stores.conversations.delete_item("alice", CONV, "b", TTL_MS)
    with pytest.raises(UnknownConversationItemError):
        await stores.conversations.delete_item("alice", CONV, "b", TTL_MS)
    await stores.add("b")

    assert await stores.ids() == ["a", "c", "b"]


async def test_items_are_listed_page_by_page(stores: Stores) -> None:
    await stores.create(*"abcde")

    async def page(order: Any, after: str | None) -> tuple[str, bool]:
        found = await stores.conversations.page("alice", CONV, order=order, limit=2, after=after)
        return "".join(item.id for item in found.items), found.has_more

    assert await page("asc", None) == ("ab", True)
    assert await page("asc", "d") == ("e", False)
    assert await page("desc", "d") == ("cb", True)
    with pytest.raises(UnknownConversationItemError):
        await page("asc", "z")


async def test_items_of_a_turn_are_added_when_it_has_its_answer(stores: Stores) -> None:
    await stores.create("a")
    row = await stores.started()
    assert await stores.ids() == ["a"]
    await stores.end(row, "out")

    assert await stores.ids() == ["a", "resp_1-in", "out"]


async def test_item_that_the_conversation_has_is_not_added_again(stores: Stores) -> None:
    await stores.create("resp_1-in")
    await stores.end(await stores.started(), "out", "out")

    assert await stores.ids() == ["resp_1-in", "out"]


@pytest.mark.parametrize("status", [ResponseStatus.FAILED, ResponseStatus.CANCELLED])
async def test_turn_without_an_answer_adds_nothing(stores: Stores, status: ResponseStatus) -> None:
    await stores.create("a")
    await stores.end(await stores.started(), "out", status=status)

    assert await stores.ids() == ["a"]
    await stores.started("resp_2")


async def test_conversation_is_locked_while_a_turn_runs(stores: Stores) -> None:
    await stores.create("a")
    row = await stores.started()
    for change in (
        stores.started("resp_2"),
        stores.add("b"),
        stores.conversations.delete_item("alice", CONV, "a", TTL_MS),
    ):
        with pytest.raises(ConversationLockedError):
            await change
    assert await stores.responses.get("alice", "resp_2") is None
    await stores.conversations.update("alice", CONV, '{"a":"b"}', TTL_MS)
    await stores.end(row)

    await stores.add("b")


@pytest.mark.parametrize("end", ["cancelled", "deleted", "forgotten", "lost"])
async def test_lock_ends_with_the_response_however_that_ends(stores: Stores, end: str) -> None:
    await stores.create()
    row = await stores.started()
    if end == "cancelled":
        await stores.responses.cancel("alice", "resp_1")
    elif end == "deleted":
        await stores.responses.delete("alice", "resp_1")
    elif end == "forgotten":
        await stores.responses.discard(row)
    else:
        await stores.responses.fail_lost()

    await stores.started("resp_2")


async def test_answer_of_a_lost_turn_is_added_unless_there_was_another(stores: Stores) -> None:
    await stores.create()
    first = await stores.started()
    await stores.responses.fail_lost()
    await stores.end(first, "late")
    second = await stores.started("resp_2")
    await stores.responses.fail_lost()
    await stores.end(await stores.started("resp_3"), "three")
    assert await stores.end(second, "too late")

    assert await stores.ids() == ["resp_1-in", "late", "resp_3-in", "three"]


async def test_change_of_items_that_were_changed_since_they_were_seen_is_refused(stores: Stores) -> None:
    await stores.create("a")
    seen, _ = await stores.conversations.history("alice", CONV)
    await stores.conversations.delete_item("alice", CONV, "a", TTL_MS)

    with pytest.raises(ConversationLockedError):
        await stores.conversations.add(seen, items("b"), TTL_MS)
    with pytest.raises(ConversationLockedError):
        await stores.responses.create(new(conversation=seen), TTL_MS)


async def test_turns_that_start_together_are_one(stores: Stores) -> None:
    await stores.create()
    seen, _ = await stores.conversations.history("alice", CONV)
    starts = [stores.responses.create(new(f"resp_{i}", conversation=seen), TTL_MS) for i in range(8)]
    ended = await asyncio.gather(*starts, return_exceptions=True)

    assert [type(each) for each in ended].count(int) == 1
    assert {type(each) for each in ended} == {int, ConversationLockedError}


async def test_deleted_conversation_is_gone_and_its_turn_ends_without_it(stores: Stores) -> None:
    await stores.create("a")
    row = await stores.started()
    seen, _ = await stores.conversations.history("alice", CONV)
    await stores.conversations.delete("alice", CONV)

    assert await stores.end(row, "out")
    with pytest.raises(UnknownConversationError):
        await stores.conversations.delete("alice", CONV)
    with pytest.raises(UnknownConversationError):
        await stores.conversations.add(seen, items("b"), TTL_MS)
    assert await stores.conversations.items("alice", ["a"]) == {}
    await stores.create()
    assert await stores.ids() == []
    _, texts = await stores.responses.history("alice", "resp_1")
    assert ids(texts) == ["a", "resp_1-in", "out"]
    await stores.responses.delete("alice", "resp_1")
    assert await stores.responses.clean() == 1
    assert await stores.conversations.clean() == 1
    assert (await stores.rows(CONVERSATIONS), await stores.rows(CONVERSATION_ITEMS)) == (1, 0)


@pytest.mark.parametrize("end", ["deleted", "evicted", "expired"])
async def test_response_of_a_conversation_that_is_gone_is_continued_from_all_before_it(
    stores: Stores, end: str
) -> None:
    await stores.create("a")
    await stores.end(await stores.started(), "one")
    branch = await stores.responses.create(new("resp_2", previous="resp_1"), 3 * TTL_MS)
    await stores.end(branch, "two", response_id="resp_2")
    if end == "deleted":
        await stores.conversations.delete("alice", CONV)
    elif end == "evicted":
        await stores.conversations.evict(0)
    else:
        stores.clock.now += TTL_MS
    assert (await stores.responses.clean(), await stores.conversations.clean()) == (0, 0)
    _, texts = await stores.responses.history("alice", "resp_2")
    assert ids(texts) == ["a", "resp_1-in", "one", "resp_2-in", "two"]

    stores.clock.now += 3 * TTL_MS
    while await stores.responses.clean():
        pass
    assert await stores.conversations.clean() == 1
    assert (await stores.rows(CONVERSATIONS), await stores.rows(CONVERSATION_ITEMS)) == (0, 0)


async def test_response_of_a_turn_is_continued_from_the_items_that_it_had(stores: Stores) -> None:
    await stores.create("a")
    await stores.end(await stores.started(), "one")
    await stores.end(await stores.started("resp_2"), "two", response_id="resp_2")
    branch = await stores.responses.create(new("resp_3", previous="resp_1"), TTL_MS)
    await stores.end(branch, "three", response_id="resp_3")
    _, texts = await stores.responses.history("alice", "resp_3")

    assert ids(texts) == ["a", "resp_1-in", "one", "resp_3-in", "three"]


async def test_turn_that_runs_beyond_the_bounds_of_responses_adds_its_items(stores: Stores) -> None:
    await stores.create("a")
    row = await stores.started()
    await stores.responses.create(new("resp_2"), TTL_MS)
    await stores.responses.evict(1)
    assert await stores.responses.clean() == 0
    assert await stores.end(row, "one")

    assert await stores.ids() == ["a", "resp_1-in", "one"]


async def test_size_of_a_conversation_is_in_bytes(stores: Stores) -> None:
    await stores.create()
    assert await stores.conversations.size("alice", CONV) == (0, 0)
    seen, _ = await stores.conversations.history("alice", CONV)
    texts = [StoredItem("a", '{"a":"\u00e4\u20ac"}'), StoredItem("b", r'{"b":"\\x"}')]
    await stores.conversations.add(seen, texts, TTL_MS)

    assert await stores.conversations.size("alice", CONV) == (2, sum(len(item.text.encode()) for item in texts))
    with pytest.raises(UnknownConversationError):
        await stores.conversations.size("bob", CONV)


async def test_conversation_expires_some_time_after_its_last_change(stores: Stores) -> None:
    await stores.create("a")
    changes: Sequence[Any] = (
        lambda: stores.add("b"),
        lambda: stores.conversations.update("alice", CONV, "{}", TTL_MS),
        lambda: stores.conversations.delete_item("alice", CONV, "b", TTL_MS),
        lambda: stores.started(),
    )
    for change in changes:
        stores.clock.now += TTL_MS - 1
        await change()
    assert await stores.conversations.clean() == 0
    await stores.responses.delete("alice", "resp_1")
    await stores.responses.clean()
    stores.clock.now += TTL_MS

    with pytest.raises(UnknownConversationError):
        await stores.conversations.get("alice", CONV)
    assert await stores.conversations.clean() == 1
    assert (await stores.rows(CONVERSATIONS), await stores.rows(CONVERSATION_ITEMS)) == (0, 0)


async def test_conversations_beyond_the_bound_go_those_unused_for_longest_first(stores: Stores) -> None:
    for number in range(4):
        stores.clock.now += 1
        await stores.create(conversation_id=f"conv_{number}")
        await stores.create(owner="bob", conversation_id=f"conv_{number}")
    stores.clock.now += 1
    await stores.add("a", conversation_id="conv_0")
    await stores.conversations.delete("bob", "conv_0")

    assert await stores.conversations.evict(3) == 1
    assert await stores.conversations.evict(3) == 0
    for owner, gone in (("alice", "conv_1"), ("bob", "conv_0")):
        with pytest.raises(UnknownConversationError):
            await stores.conversations.get(owner, gone)
    await stores.conversations.get("alice", "conv_0")
    await stores.conversations.get("bob", "conv_1")


async def test_conversations_are_added_to_an_older_database(stores: Stores) -> None:
    def as_it_was(connection: sa.Connection) -> None:
        for table in ("conversations", "conversation_items"):
            connection.execute(sa.text(f"DROP TABLE {table}"))
        connection.execute(sa.text("DROP INDEX responses_conversations"))
        for column in ("conversation_seq", "conversation_position"):
            connection.execute(sa.text(f"ALTER TABLE responses DROP COLUMN {column}"))
        connection.execute(sa.text("UPDATE schema_version SET version = 5"))

    await stores.database.run(as_it_was, writes=True)
    await migrate(stores.database)

    await stores.create("a")
    await stores.end(await stores.started(), "out")
    assert await stores.ids() == ["a", "resp_1-in", "out"]


async def test_text_that_no_database_holds_is_stored_as_near_as_it_can_be(stores: Stores) -> None:
    await stores.create()
    seen, _ = await stores.conversations.history("alice", CONV)
    await stores.conversations.add(seen, [StoredItem("a\0\ud800", '{"id":"a"}')], TTL_MS)

    assert await stores.conversations.item("alice", CONV, "a\0\ud800") == '{"id":"a"}'
    with pytest.raises(UnknownConversationError):
        await stores.conversations.get("alice", "\0\ud800")


OWNERS = ("alice", "bob")
NAMES = ("c0", "c1", "c2")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(OWNERS),
        st.sampled_from(("create", "add", "turn", "start", "update", "delete", "delete item", "read")),
        st.sampled_from(NAMES),
        st.sampled_from(("x", "y")),
    ),
    max_size=25,
)
_ROUNDS = count()
_REFUSALS = (
    UnknownConversationError,
    ConversationLockedError,
    ItemExistsError,
    UnknownConversationItemError,
    sa.exc.IntegrityError,
)


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
        shared = Stores(both, clock)
        alone = {"alice": Stores(alice, clock), "bob": Stores(bob, clock)}
        for step_number, (owner, *step) in enumerate(steps):
            of_round = f"{owner} {number}"
            one = await _done(shared, of_round, step_number, *step)
            assert one == await _done(alone[owner], of_round, step_number, *step)
        for owner in OWNERS:
            for name in NAMES:
                of_round = f"{owner} {number}"
                assert await _all_readings(shared, of_round, name) == await _all_readings(alone[owner], of_round, name)


async def _done(stores: Stores, owner: str, number: int, step: str, name: str, item: str) -> object:
    conversations = stores.conversations

    async def turn() -> None:
        await stores.end(await stores.started(f"r{number}", owner, name), f"{number}", item)

    steps: dict[str, Callable[[], Awaitable[object]]] = {
        "create": lambda: stores.create(item, owner=owner, conversation_id=name),
        "add": lambda: stores.add(item, owner=owner, conversation_id=name),
        "turn": turn,
        "start": lambda: stores.started(f"r{number}", owner, name),
        "update": lambda: conversations.update(owner, name, json.dumps({"a": item}), TTL_MS),
        "delete": lambda: conversations.delete(owner, name),
        "delete item": lambda: conversations.delete_item(owner, name, item, TTL_MS),
        "read": lambda: _all_readings(stores, owner, name),
    }
    try:
        found = await steps[step]()
    except _REFUSALS as error:
        return type(error)
    return None if step == "start" else found  # the row's number


async def _all_readings(stores: Stores, owner: str, name: str) -> object:
    named = sorted(await stores.conversations.items(owner, ["x", "y", *map(str, range(25))]))
    try:
        found = await stores.conversations.get(owner, name)
        listed = await stores.conversations.page(owner, name, order="asc", limit=99)
    except UnknownConversationError:
        return named
    return named, found, listed, await stores.ids(owner, name)
