"""Reasoning that a client keeps: encrypted, given back, and refused as another's."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from gptoss_bento.responses.encryption import ForeignContentError, ReasoningCipher, SharedCipher
from gptoss_bento.responses.stored_responses import OTHER_KEY
from gptoss_bento.state.schema import RESPONSE_REQUESTS
from gptoss_bento.state.secret_store import SecretStore
from tests.unit.responses.conftest import Api
from tests.unit.responses.test_routes import URL, created, events_of, found_as
from tests.unit.responses.test_websocket import connected

CONTENT = [{"type": "reasoning_text", "text": "Why? Därum."}]
INCLUDE = ["reasoning.encrypted_content"]
KEYS = ["a" * 32, "b" * 32]


@pytest.fixture
def cipher() -> ReasoningCipher:
    return ReasoningCipher(KEYS[:1])


def test_content_is_what_was_encrypted_and_differs_each_time(cipher: ReasoningCipher) -> None:
    one, two = (cipher.encrypted("alice", CONTENT) for _ in range(2))

    assert cipher.decrypted("alice", one) == cipher.decrypted("alice", two) == CONTENT
    assert one != two
    assert "rum" not in one


def test_content_of_another_owner_or_key_is_foreign(cipher: ReasoningCipher) -> None:
    text = cipher.encrypted("alice", CONTENT)
    changed = text[:40] + ("A" if text[40] != "A" else "B") + text[41:]
    for owner, given in (
        ("bob", text),
        ("", text),
        ("alice", changed),
        ("alice", ""),
        ("alice", "1."),
        ("alice", "1.ä"),
    ):
        with pytest.raises(ForeignContentError):
            cipher.decrypted(owner, given)
    with pytest.raises(ForeignContentError):
        ReasoningCipher(KEYS[1:]).decrypted("alice", text)


def test_content_of_a_former_key_is_read_beside_the_new_one(cipher: ReasoningCipher) -> None:
    text = cipher.encrypted("alice", CONTENT)
    changed = ReasoningCipher(KEYS[::-1])

    assert changed.decrypted("alice", text) == CONTENT
    with pytest.raises(ForeignContentError):
        cipher.decrypted("alice", changed.encrypted("alice", CONTENT))


async def test_key_of_a_database_is_the_same_for_all_workers(api: Api) -> None:
    workers = [SharedCipher(SecretStore(api.responses.store.database)) for _ in range(2)]
    text = (await workers[0].get()).encrypted("alice", CONTENT)

    assert (await workers[1].get()).decrypted("alice", text) == CONTENT
    given = SharedCipher(SecretStore(api.responses.store.database), KEYS)
    with pytest.raises(ForeignContentError):
        (await given.get()).decrypted("alice", text)


async def reasoned(api: Api, **fields: Any) -> dict[str, Any]:
    """The item of reasoning of a response that is not stored."""
    api.vllm.reasons = True
    made = await created(api, store=False, include=INCLUDE, **fields)
    item: dict[str, Any] = made["output"][0]
    return item


async def test_reasoning_is_encrypted_for_a_client_that_asks(api: Api) -> None:
    item = await reasoned(api)
    assert (item["type"], item["content"][0]["text"]) == ("reasoning", "one two")
    assert "encrypted_content" not in (await created(api))["output"][0]

    Response.model_validate(await created(api, include=INCLUDE), strict=True)
    for fields in ({}, {"store": False}, {"background": True, "request_id": "resp_1"}):
        events = events_of(
            await api.client.post(URL, json={"input": "x", "stream": True, "include": INCLUDE, **fields})
        )
        done = next(event["item"] for event in events if event["type"] == "response.output_item.done")
        assert done["encrypted_content"]
        assert events[-1]["response"]["output"] == [done]
        for event in events:
            TypeAdapter(ResponseStreamEvent).validate_python(event, strict=True)
    assert (await found_as(api, "resp_1", "completed"))["output"] == [done]


@pytest.mark.parametrize("store", [False, True])
async def test_encrypted_reasoning_that_is_given_back_is_read_by_the_model(api: Api, store: bool) -> None:
    item = await reasoned(api)
    kept = {"type": "reasoning", "summary": [], "encrypted_content": item["encrypted_content"]}
    one = await created(api, input=[kept, {"role": "user", "content": "go on"}], store=store)

    (given, _) = api.vllm.bodies[-1]["input"]
    assert given["content"] == [{"type": "reasoning_text", "text": "one two"}]
    assert "encrypted_content" not in given
    if store:
        listed = (await api.client.get(f"{URL}/{one['id']}/input_items?order=asc")).json()["data"][0]
        assert (listed["encrypted_content"], "content" in listed) == (item["encrypted_content"], False)
        await created(api, input="more", previous_response_id=one["id"])
        assert api.vllm.bodies[-1]["input"][0]["content"] == given["content"]


async def test_encrypted_reasoning_is_counted_as_it_is_read(api: Api) -> None:
    item = await reasoned(api)
    await api.client.post(f"{URL}/input_tokens", json={"input": [{**item, "content": None}]})

    assert api.vllm.bodies[-1]["input"][0]["content"] == item["content"]


async def test_reasoning_of_another_key_is_refused_before_anything_is_generated(api: Api) -> None:
    item = await reasoned(api)
    asked = len(api.vllm.bodies)
    for key, text in (("bob", item["encrypted_content"]), ("alice", "gAAAA-of-another-server")):
        given = [{"role": "user", "content": "x"}, {**item, "encrypted_content": text}]
        answer = await api.of(key).post(URL, json={"input": given})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "invalid_encrypted_content")
        assert error["param"] == "input[1].encrypted_content"
        assert error["message"].startswith("input[1].encrypted_content could not be verified")
    assert len(api.vllm.bodies) == asked


async def test_continued_response_needs_no_key_for_reasoning_that_the_store_has(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.vllm.reasons = True
    one = await created(api, include=INCLUDE)
    monkeypatch.setattr(api.responses, "_cipher", SharedCipher(SecretStore(api.responses.store.database), KEYS))
    await created(api, input="more", previous_response_id=one["id"])

    named = [{"role": "user", "content": "x"}, {"type": "item_reference", "id": one["output"][0]["id"]}]
    await created(api, input=named)

    for body in api.vllm.bodies[1:]:
        assert body["input"][1]["content"] == one["output"][0]["content"]
        assert "encrypted_content" not in body["input"][1]


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("continues", [False, True])
async def test_encrypted_reasoning_of_a_response_in_the_background_is_not_in_the_database_in_clear(
    api: Api, waits: bool, continues: bool
) -> None:
    item = await reasoned(api)
    kept = {"type": "reasoning", "summary": [], "encrypted_content": item["encrypted_content"]}
    asked: dict[str, Any] = {"input": [kept, {"role": "user", "content": "go on"}]}
    api.vllm.reasons, api.vllm.words = False, ["yes"]
    if continues:
        asked = {"input": "more", "previous_response_id": (await created(api, **asked))["id"]}
    api.responses._queue.slots.is_paused = waits
    api.vllm.held.clear()
    made = await created(api, background=True, **asked)
    assert "one two" not in await kept_text(api)

    api.responses._queue.slots.is_paused = False
    api.vllm.held.set()
    await found_as(api, made["id"], "completed")
    assert api.vllm.bodies[-1]["input"][0]["content"] == item["content"]


async def kept_text(api: Api) -> str:
    """The one request that is kept."""
    select = sa.select(RESPONSE_REQUESTS.c.request)
    database = api.responses.store.database
    return str(await database.run(lambda connection: connection.execute(select).scalar_one(), writes=False))


async def test_response_that_waits_fails_with_the_reason_if_its_key_is_gone(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = await reasoned(api)
    api.responses._queue.slots.is_paused = True
    made = await created(api, background=True, input=[item, {"role": "user", "content": "go on"}])
    monkeypatch.setattr(api.responses, "_cipher", SharedCipher(SecretStore(api.responses.store.database), KEYS))
    api.responses._queue.slots.is_paused = False

    assert (await found_as(api, made["id"], "failed"))["error"]["message"] == OTHER_KEY
    assert api.responses._queue.slots._in_use == 0


async def test_encrypted_reasoning_is_summed_up_as_it_was(api: Api) -> None:
    item = await reasoned(api)
    api.vllm.reasons = False
    kept = {"type": "reasoning", "summary": [], "encrypted_content": item["encrypted_content"]}
    tools = [{"type": "custom", "name": "patch"}]
    asked = {"model": "m", "input": [{"role": "user", "content": "x"}, kept], "tools": tools}
    answer = await api.client.post(f"{URL}/compact", json=asked)

    assert answer.status_code == 200, answer.text
    assert api.vllm.bodies[-1]["input"][1]["content"] == item["content"]
    assert "tools" not in api.vllm.bodies[-1]


async def test_stored_reasoning_is_read_over_a_websocket_after_the_key_was_replaced(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.vllm.reasons = True
    stored = await created(api, include=INCLUDE)
    replaced = SharedCipher(SecretStore(api.responses.store.database), KEYS)
    monkeypatch.setattr(api.responses, "_cipher", replaced)
    async with connected(api) as connection:
        previous = stored["id"]
        for _ in range(2):
            last = (await connection.turn(store=False, include=INCLUDE, previous_response_id=previous))[-1]
            assert last["type"] == "response.completed", last
            previous = last["response"]["id"]
            replaced._cipher = ReasoningCipher(KEYS[1:])

    reasoning = api.vllm.bodies[-1]["input"][1]
    assert (reasoning["content"][0]["text"], "encrypted_content" in reasoning) == ("one two", False)


async def test_reasoning_of_another_key_is_no_item_of_a_conversation(api: Api) -> None:
    item = await reasoned(api)
    kept = {"type": "reasoning", "summary": [], "encrypted_content": item["encrypted_content"]}
    for key, status in (("bob", 400), ("alice", 200)):
        client = api.of(key)
        made = (await client.post("/v1/conversations", json={})).json()
        asked = len(api.vllm.bodies)
        path = f"/v1/conversations/{made['id']}/items"
        answers = [
            await client.post("/v1/conversations", json={"items": [kept]}),
            await client.post(path, json={"items": [{"role": "user", "content": "x"}, kept]}),
        ]
        assert [answer.status_code for answer in answers] == [status] * 2
        if status == 200:
            assert api.vllm.bodies[-1]["input"][1]["content"] == item["content"]
            stored = answers[1].json()["data"][1]
            assert (stored["encrypted_content"], stored.get("content")) == (item["encrypted_content"], None)
            continue
        assert len(api.vllm.bodies) == asked
        error = answers[1].json()["error"]
        assert (error["code"], error["param"]) == ("invalid_encrypted_content", "items[1].encrypted_content")
        assert (await client.get(path)).json()["data"] == []
        api.vllm.reasons = False
        turn = await client.post(URL, json={"input": "x", "conversation": made["id"]})
        assert turn.status_code == 200
