"""Responses in the background that wait for a slot, and those of workers that ended; over a fake of vLLM."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from gptoss_bento.access.admission import Admission, RefusedError, engine_rule, key_rules
from gptoss_bento.access.key_store import KeyStore
from gptoss_bento.access.stored_limits import limits_text
from gptoss_bento.config.api_keys import Key, KeyLimits, digest
from gptoss_bento.engine.usage import current_meter
from gptoss_bento.http.errors import BrokenStreamError
from gptoss_bento.responses.background_slots import BackgroundSlots
from gptoss_bento.responses.fake_vllm import FakeVllm
from gptoss_bento.responses.kept_request import kept_request, read_kept
from gptoss_bento.responses.request import read_create
from gptoss_bento.responses.routes import ResponsesApi
from gptoss_bento.responses.stored_responses import OTHER_VERSION, StoredResponses
from gptoss_bento.state import leases
from gptoss_bento.state.database import StoreUnavailableError
from gptoss_bento.state.response import NewResponse, ResponseStatus
from gptoss_bento.state.response_queue import Claimed, Length
from gptoss_bento.state.worker_identity import WorkerIdentity
from tests.fakes import asgi_client
from tests.unit.responses.conftest import OWNERS, Api, clients_of
from tests.unit.responses.test_routes import URL, created, events_of, found_as, kinds
from tests.waiting import until

KEYS = [Key(name, (digest(name),), limits=KeyLimits(streams=1) if name == "alice" else KeyLimits()) for name in OWNERS]
DIED = BrokenStreamError(HTTPStatus.SERVICE_UNAVAILABLE, "The engine died.")


def limited(api: Api, share: int = 10, keys: KeyStore | None = None, engine_slots: int = 100) -> BackgroundSlots:
    """Gives the worker these slots, before any response is made."""
    api.responses._queue.slots = slots = BackgroundSlots(keys, Admission(), engine_slots, share)
    return slots


@asynccontextmanager
async def second_worker(api: Api, worker_id: str = "second") -> AsyncIterator[Api]:
    """Another worker on the same store, with a vLLM of its own."""
    store = api.responses.store
    lease = WorkerIdentity(worker_id, "machine", 1, 0)
    await store.database.run(lambda connection: leases.renew(connection, lease, store.clock()), writes=True)
    responses = StoredResponses(store, worker_id, 3600, 100, "gpt-oss")
    vllm = FakeVllm()
    app = ResponsesApi(vllm, responses)
    keys = KeyStore(KEYS)
    yield Api(vllm, responses, app, keys, clients_of(app, keys))
    await responses.stop(5)


def text_of(response: dict[str, Any]) -> str:
    return str(response["output"][0]["content"][0]["text"])


async def test_response_without_a_slot_waits_and_then_runs(api: Api) -> None:
    slots = limited(api, share=1)
    api.vllm.held.clear()
    first = await created(api, background=True)
    second = await created(api, background=True, instructions="Be brief.", previous_response_id=None)
    await found_as(api, first["id"], "in_progress")
    assert (await found_as(api, second["id"], "queued")) == second
    assert len(api.vllm.bodies) == 1

    api.vllm.held.set()
    await found_as(api, first["id"], "completed")
    found = await found_as(api, second["id"], "completed")
    assert (text_of(found), found["instructions"], found["created_at"]) == (
        "one two",
        "Be brief.",
        second["created_at"],
    )
    await until(lambda: not api.responses.running)
    assert slots.are_free


async def test_stream_of_a_response_that_waits_begins_when_it_runs(api: Api) -> None:
    slots = limited(api)
    slots.is_paused = True
    asked = {"input": "x", "background": True, "stream": True, "request_id": "waits"}
    posted = asyncio.create_task(api.client.post(URL, json=asked))
    await found_as(api, "waits", "queued")
    assert api.vllm.bodies == []

    slots.is_paused = False
    events = events_of(await posted)
    assert (kinds(events)[0], kinds(events)[-1]) == ("created", "completed")


async def test_stream_of_a_response_that_waits_ends_when_the_service_stops(api: Api) -> None:
    limited(api).is_paused = True
    asked = {"input": "x", "background": True, "stream": True, "request_id": "waits"}
    posted = asyncio.create_task(api.client.post(URL, json=asked))
    await found_as(api, "waits", "queued")
    await until(lambda: api.responses._following._followers)
    without_events = await created(api, background=True)
    replayed = asyncio.create_task(api.client.get(f"{URL}/{without_events['id']}?stream=true"))
    api.responses.pause()

    assert events_of(await posted) == events_of(await replayed) == []
    assert (await api.client.get(f"{URL}/waits")).json()["status"] == "queued"


async def test_continued_response_that_waits_has_its_history(api: Api) -> None:
    earlier = await created(api, input="before")
    slots = limited(api)
    slots.is_paused = True
    made = await created(api, background=True, input="now", previous_response_id=earlier["id"])
    assert (await api.client.delete(f"{URL}/{earlier['id']}")).status_code == 200
    slots.is_paused = False

    found = await found_as(api, made["id"], "completed")
    assert found["previous_response_id"] == earlier["id"]
    texts = [item["content"][0]["text"] for item in api.vllm.bodies[-1]["input"]]
    assert texts == ["before", "one two", "now"]


async def test_streams_of_a_key_bound_what_it_runs_and_not_what_waits(api: Api) -> None:
    limited(api, keys=KeyStore(KEYS))
    api.vllm.held.clear()
    made = [await created(api, background=True) for _ in range(3)]
    other = await created(api, "bob", background=True)
    await until(lambda: len(api.vllm.bodies) == 2)

    assert {body["request_id"] for body in api.vllm.bodies} == {made[0]["id"], other["id"]}
    api.vllm.held.set()
    for each in made:
        await found_as(api, each["id"], "completed")


async def test_streams_of_a_key_that_was_removed_hold_for_what_waits(api: Api) -> None:
    slots = limited(api, keys=KeyStore(KEYS))
    slots.is_paused = True
    api.keys._take(tuple(KEYS))
    made = [await created(api, background=True) for _ in range(3)]
    api.vllm.held.clear()
    limited(api, keys=KeyStore(KEYS[1:]))
    other = await created(api, "bob", background=True)
    await until(lambda: len(api.vllm.bodies) == 2)

    assert {body["request_id"] for body in api.vllm.bodies} == {made[0]["id"], other["id"]}
    api.vllm.held.set()
    for each in made:
        await found_as(api, each["id"], "completed")


def test_slots_of_a_removed_key_are_counted_with_its_running_requests() -> None:
    admission, (alice, *others) = Admission(), KEYS
    live = admission.enter(key_rules(alice, streams=True))
    slots = BackgroundSlots(KeyStore(others), admission)
    limits = limits_text(alice)
    assert slots.enter("alice", limits) is None

    live.leave()
    assert slots.enter("alice", limits)
    assert slots.enter("alice", limits) is None
    assert BackgroundSlots(KeyStore(), admission).enter("alice", limits)  # keys were switched off


async def test_slots_are_shared_with_requests_whose_clients_wait() -> None:
    admission = Admission()
    slots = BackgroundSlots(None, admission, 2)
    live = admission.enter((engine_rule(2),))
    grant = slots.enter("alice")
    assert grant
    assert slots.enter("alice") is None

    live.leave()
    assert slots.enter("alice")
    slots.leave(grant, "alice")
    assert slots.enter("alice")


async def test_tokens_are_charged_to_the_key_at_the_end(api: Api) -> None:
    keys = KeyStore([Key("alice", (digest("alice"),), limits=KeyLimits(tokens_per_minute=5))])
    slots = limited(api, keys=keys)

    async def metered(scope: Scope, receive: Receive, send: Send) -> None:
        meter = current_meter()
        assert meter
        meter.add(lambda: 7)
        await FakeVllm()(scope, receive, send)

    api.app._app = metered
    made = await created(api, background=True)
    await found_as(api, made["id"], "completed")
    await until(lambda: not api.responses.running)
    with pytest.raises(RefusedError, match="may use 5 tokens"):
        slots._admission.enter(key_rules(keys.of_owner("alice"), streams=False))


async def test_queue_that_is_full_is_a_429(api: Api) -> None:
    limited(api).is_paused = True
    api.responses._queue._most = 2
    await created(api, background=True)
    await created(api, "bob", background=True)
    refused = await api.client.post(URL, json={"input": "x", "background": True, "request_id": "refused"})

    assert (refused.status_code, "retry-after" in refused.headers) == (429, True)
    assert "2 responses wait already." in refused.text
    assert (await api.client.get(f"{URL}/refused")).status_code == 404


async def test_queue_that_one_key_fills_has_room_for_another(api: Api) -> None:
    limited(api).is_paused = True
    api.responses._queue._most = 4
    for _ in range(2):
        await created(api, background=True)
    refused = await api.client.post(URL, json={"input": "x", "background": True})

    assert refused.status_code == 429
    assert "2 responses of this key wait already, as many as may of one key. Try again later." in refused.text
    assert (await created(api, "bob", background=True))["status"] == "queued"


async def test_queue_of_an_open_server_is_its_one_owners(api: Api) -> None:
    queue = api.responses._queue
    limited(api).is_paused = True
    queue._most = 2
    async with asgi_client(api.app) as client:
        codes = [(await client.post(URL, json={"input": "x", "background": True})).status_code for _ in range(3)]

    assert codes == [200, 200, 429]


async def test_slot_that_is_free_is_taken_whatever_others_have_queued(api: Api) -> None:
    limited(api, keys=KeyStore(KEYS))
    api.responses._queue._most = 1
    api.vllm.held.clear()
    running, waiting = [await created(api, background=True) for _ in range(2)]
    other = await created(api, "bob", background=True)
    await until(lambda: len(api.vllm.bodies) == 2)

    assert {body["request_id"] for body in api.vllm.bodies} == {running["id"], other["id"]}
    api.vllm.held.set()
    await found_as(api, waiting["id"], "completed")


async def test_response_does_not_overtake_those_that_wait(api: Api) -> None:
    slots = limited(api, share=1)
    slots.is_paused = True
    waiting = [await created(api, background=True) for _ in range(2)]
    slots.is_paused = False
    waiting.append(await created(api, background=True))
    for each in waiting:
        await found_as(api, each["id"], "completed")

    assert [body["request_id"] for body in api.vllm.bodies] == [each["id"] for each in waiting]


async def test_cancelled_response_that_waits_never_runs(api: Api) -> None:
    slots = limited(api)
    slots.is_paused = True
    cancelled, deleted = [await created(api, background=True) for _ in range(2)]
    assert (await api.client.post(f"{URL}/{cancelled['id']}/cancel")).json()["status"] == "cancelled"
    await api.client.delete(f"{URL}/{deleted['id']}")
    slots.is_paused = False
    await found_as(api, (await created(api, background=True))["id"], "completed")

    assert len(api.vllm.bodies) == 1


async def test_waiting_response_that_vllm_refuses_fails_with_the_reason(api: Api) -> None:
    slots = limited(api)
    slots.is_paused = True
    answer = await api.client.post(URL, json={"background": True})
    assert answer.status_code == 200
    slots.is_paused = False

    found = await found_as(api, answer.json()["id"], "failed")
    assert found["error"] == {"code": "invalid_prompt", "message": "input is missing"}


async def test_response_of_a_worker_that_ended_is_generated_by_another(api: Api) -> None:
    slots = limited(api)
    slots.is_paused = True
    made = await created(api, background=True)
    queue = api.responses._queue.store
    (waiting,) = await queue.waiting((), 10)
    assert await queue.claim(waiting.row, "ended")
    slots.is_paused = False

    assert text_of(await found_as(api, made["id"], "completed")) == "one two"
    assert len(api.vllm.bodies) == 1


async def test_response_that_a_shutdown_interrupts_is_left_to_the_next_start(api: Api) -> None:
    await api.responses.stop(5)
    async with second_worker(api) as ending:
        ending.vllm.held.clear()
        made = await created(ending, background=True)
        await found_as(api, made["id"], "in_progress")
        ending.vllm.breaks = BrokenStreamError(HTTPStatus.SERVICE_UNAVAILABLE, "The server stopped.")
        ending.responses.pause()
        ending.vllm.held.set()
        await found_as(api, made["id"], "queued")
    async with second_worker(api, "next") as following:
        following.responses.start(following.vllm)
        assert text_of(await found_as(api, made["id"], "completed")) == "one two"


async def test_response_that_was_streamed_fails_at_a_shutdown(api: Api) -> None:
    api.vllm.held.clear()
    posted = asyncio.create_task(
        api.client.post(URL, json={"input": "x", "background": True, "stream": True, "request_id": "read"})
    )

    async def is_read() -> bool:
        found = await api.responses.store.get("alice", "read")
        return bool(found and found.is_followed)

    while not await is_read():  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    api.responses.pause()
    await api.responses.stop(0)

    assert kinds(events_of(await posted))[-1] == "failed"
    found = (await api.client.get(f"{URL}/read")).json()
    assert found["status"] == "failed"
    assert found["error"]


async def test_response_whose_engine_fails_runs_again_once(api: Api) -> None:
    api.vllm.breaks = DIED
    made = await created(api, background=True)
    found = await found_as(api, made["id"], "failed")

    assert found["error"]["message"] == "The engine died."
    assert len(api.vllm.bodies) == 2


async def test_claim_that_the_database_did_not_answer_is_given_back(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    store = api.responses._queue.store
    claim, calls = store.claim, 0

    async def unanswered(*args: Any) -> Claimed | None:
        nonlocal calls
        calls += 1
        claimed = await claim(*args)
        if calls == 1:
            raise StoreUnavailableError("gone")
        return claimed

    monkeypatch.setattr(store, "claim", unanswered)
    slots = limited(api)
    slots.is_paused = True
    made = await created(api, background=True)
    slots.is_paused = False
    await found_as(api, made["id"], "completed")

    assert len(api.vllm.bodies) == 1
    await until(lambda: not api.responses.running)
    assert slots._in_use == 0


async def test_request_of_another_version_fails_with_the_reason(api: Api) -> None:
    object_text = json.dumps({"id": "old", "status": "queued", "background": True})
    kept = json.dumps({"request": {"unknown": 1}, "body": {}})
    new = NewResponse("alice", "old", object_text, [], None, None, ResponseStatus.QUEUED, request=kept)
    await api.responses.store.create(new, 1000)

    assert (await found_as(api, "old", "failed"))["error"]["message"] == OTHER_VERSION


@pytest.mark.parametrize(
    "secrets",
    [
        {"headers": {"Authorization": "s3cret"}, "authorization": "s3cret"},
        {"server_url": "https://example.com:8443/s3cret/mcp?key=s3cret#s3cret"},
        {"server_url": "https://s3cret@example.com:8443"},
    ],
)
async def test_request_with_secrets_is_in_no_database(api: Api, secrets: dict[str, Any]) -> None:
    tool = {"type": "mcp", "server_label": "x", **secrets}
    api.vllm.held.clear()
    made = await created(api, background=True, tools=[tool])
    queue = api.responses._queue
    assert (await queue.store.length("alice"), await queue.store.waiting((), 10)) == (Length(0, 0), [])
    stored = await api.responses.store.get("alice", made["id"])
    assert stored
    assert "s3cret" not in stored.body
    shown = {"server_url": "https://example.com:8443"} if "server_url" in secrets else {}
    assert made["tools"] == [{"type": "mcp", "server_label": "x", **shown}]

    queue.slots.is_paused = True
    refused = await api.client.post(URL, json={"input": "x", "background": True, "tools": [tool]})
    assert (refused.status_code, "secrets" in refused.text) == (429, True)
    api.vllm.held.set()


async def test_response_has_its_own_owner_in_the_engine_also_after_it_waited(api: Api) -> None:
    slots = limited(api)
    for owner in ("alice", "bob"):
        assert (await api.of(owner).post(URL, json={"input": "x"})).status_code == 200
    slots.is_paused = True
    made = await created(api, background=True)
    assert api.vllm.owners == ["alice", "bob"]
    slots.is_paused = False

    await api.of("bob").post(URL, json={"input": "x"})
    await found_as(api, made["id"], "completed")
    assert sorted(api.vllm.owners) == ["alice", "alice", "bob", "bob"]


async def test_turn_of_a_conversation_that_waits_holds_it_and_is_added_when_it_ran(api: Api) -> None:
    conversation = (await api.client.post("/v1/conversations", json={})).json()["id"]
    slots = limited(api)
    slots.is_paused = True
    made = await created(api, background=True, conversation=conversation)
    other = await api.client.post(URL, json={"input": "x", "conversation": conversation})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "conversation_locked")
    slots.is_paused = False

    await found_as(api, made["id"], "completed")
    items = (await api.client.get(f"/v1/conversations/{conversation}/items?order=asc")).json()["data"]
    assert [item["content"][0]["text"] for item in items] == ["hello", "one two"]


async def test_response_that_waits_has_its_tools_in_their_kinds_and_its_reasoning_encrypted(api: Api) -> None:
    api.vllm.calls, api.vllm.function = True, "patch"
    slots = limited(api)
    slots.is_paused = True
    asked: dict[str, Any] = {"tools": [{"type": "custom", "name": "patch"}], "include": ["reasoning.encrypted_content"]}
    made = await created(api, background=True, **asked)
    slots.is_paused = False
    found = await found_as(api, made["id"], "completed")

    (call,) = found["output"]
    assert (call["type"], call["name"]) == ("custom_tool_call", "patch")
    assert found["tools"] == made["tools"]
    item = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "so"}]}
    kept, _ = read_kept(str(kept_request(read_create({"input": "x", "background": True, **asked}), b"{}")))
    assert kept.wants_encrypted
    assert "encrypted_content" in (await api.responses._encrypting(kept, "alice")).encrypted(item)
