"""/v1/responses, stored, over a fake of vLLM."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

import httpx
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from gptoss_bento.access.key_store import KeyStore
from gptoss_bento.config.api_keys import listed_keys
from gptoss_bento.http.errors import BrokenStreamError
from gptoss_bento.responses import record
from gptoss_bento.responses.objects import first_object
from gptoss_bento.responses.request import read_create
from gptoss_bento.state.database import StoreUnavailableError
from gptoss_bento.state.response import NewResponse, ResponseStatus
from gptoss_bento.strict_json import dumps
from tests.unit.responses.conftest import Api, clients_of
from tests.waiting import HANG_S, until

URL = "/v1/responses"


async def created(api: Api, key: str = "alice", **fields: Any) -> dict[str, Any]:
    answer = await api.of(key).post(URL, json={"input": "hello", **fields})
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


def events_of(answer: httpx.Response) -> list[dict[str, Any]]:
    frames = [frame for frame in answer.text.split("\n\n") if frame]
    events = [json.loads(frame.partition("data: ")[2]) for frame in frames]
    assert [frame.partition("\n")[0] for frame in frames] == [f"event: {event['type']}" for event in events]
    return events


async def found_as(api: Api, response_id: str, status: str | None) -> dict[str, Any]:
    """The response once it has this status; None: once it is not found."""
    async with asyncio.timeout(HANG_S):
        while True:
            found: dict[str, Any] = (await api.client.get(f"{URL}/{response_id}")).json()
            if found.get("status") == status:
                return found
            await asyncio.sleep(0.005)


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


async def test_response_is_retrieved_as_it_was_answered(api: Api) -> None:
    made = await created(api, metadata={"a": "b"}, instructions="Be brief.")

    assert (await api.client.get(f"{URL}/{made['id']}")).json() == made
    assert (made["metadata"], made["store"], made["instructions"]) == ({"a": "b"}, True, "Be brief.")
    assert api.vllm.bodies[0]["store"] is False
    assert api.vllm.bodies[0]["input"] == "hello"


async def test_response_that_is_not_stored_leaves_nothing(api: Api) -> None:
    made = await created(api, store=False)

    assert made["store"] is False
    assert (await api.client.get(f"{URL}/{made['id']}")).status_code == 404
    assert await api.responses.store.get("alice", made["id"]) is None


async def test_server_that_is_set_to_store_nothing_stores_nothing(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    before = await created(api)
    monkeypatch.setattr(api.app, "_may_store", False)
    made = await created(api, store=True, request_id="resp_1")
    refused = await api.client.post(URL, json={"input": "x", "background": True})

    assert made["store"] is False
    assert await api.responses.store.get("alice", "resp_1") is None
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "background")
    assert (await api.client.get(f"{URL}/{before['id']}")).json() == before


async def test_object_and_events_are_those_of_openais_schema(api: Api) -> None:
    for calls in (False, True):
        api.vllm.calls = calls
        Response.model_validate(await created(api), strict=True)
        answer = await api.client.post(URL, json={"input": "x", "stream": True})
        events = events_of(answer)
        for event in events:
            TypeAdapter(ResponseStreamEvent).validate_python(event, strict=True)
        assert [event["sequence_number"] for event in events] == list(range(len(events)))


async def test_object_repeats_what_the_client_wrote() -> None:
    written = {"input": "x", "text": {"verbosity": "low"}, "instructions": "Hello."}
    translated = {"input": "x", "instructions": "Hello. Answer briefly."}
    made = first_object(read_create(translated, written), "queued", 1, "m")

    assert (made["instructions"], made["text"]["verbosity"]) == ("Hello.", "low")
    assert made["text"]["format"] == {"type": "text"}


async def test_usage_has_no_lists(api: Api) -> None:
    details = (await created(api))["usage"]

    assert details["input_tokens_details"] == {"cached_tokens": 0, "cache_write_tokens": 0}
    assert details["output_tokens_details"] == {"reasoning_tokens": 0, "tool_output_tokens": 0}


async def test_function_call_has_its_own_fields_alone(api: Api) -> None:
    api.vllm.calls = True
    answer = await api.client.post(URL, json={"input": "x", "stream": True})
    done = next(event for event in events_of(answer) if event["type"] == "response.output_item.done")

    assert done["item"].keys() == {"id", "type", "status", "call_id", "name", "arguments"}


async def test_answer_that_was_cut_ends_incomplete(api: Api) -> None:
    api.vllm.is_cut = True
    events = events_of(await api.client.post(URL, json={"input": "x", "stream": True}))

    assert kinds(events)[-2:] == ["output_item.done", "incomplete"]
    final = events[-1]["response"]
    assert events[-2]["item"]["status"] == "incomplete"
    assert final["output"] == [events[-2]["item"]]
    assert (final["status"], final["completed_at"]) == ("incomplete", None)
    assert (await api.client.get(f"{URL}/{final['id']}")).json() == final
    assert (await created(api))["output"][0]["status"] == "incomplete"


async def test_stream_is_stored_before_its_last_event(api: Api) -> None:
    events = events_of(await api.client.post(URL, json={"input": "x", "stream": True}))

    assert (await api.client.get(f"{URL}/{events[-1]['response']['id']}")).json() == events[-1]["response"]


async def test_previous_response_is_continued_with_the_new_instructions(api: Api) -> None:
    one = await created(api, instructions="Be brief.", input=[{"role": "user", "content": "first"}])
    two = await created(api, previous_response_id=one["id"], input="second")
    await created(api, previous_response_id=two["id"], input="third", instructions="Be long.")

    body = api.vllm.bodies[-1]
    texts = [item["content"][0]["text"] for item in body["input"]]
    assert texts == ["first", "one two", "second", "one two", "third"]
    assert (body["instructions"], "previous_response_id" in body) == ("Be long.", False)
    assert "instructions" not in api.vllm.bodies[1]
    assert two["previous_response_id"] == one["id"]


async def test_verbosity_is_read_by_the_model_and_not_stored(api: Api) -> None:
    developer = {"role": "developer", "content": "Be kind."}
    low: dict[str, Any] = {"text": {"verbosity": "low"}}
    one = await created(api, input=[developer, {"role": "user", "content": "first"}], **low)
    two = await created(api, previous_response_id=one["id"], input="second", **low)
    three = await created(api, previous_response_id=two["id"], input="third")
    bodies = [json.dumps(body) for body in api.vllm.bodies]

    assert [body.count("Keep the final answer short") for body in bodies] == [1, 1, 0]
    assert len(api.vllm.bodies[2]["input"]) == 6
    listed = (await api.client.get(f"{URL}/{three['id']}/input_items")).json()
    assert len(listed["data"]) == 1
    refused = await api.client.post(URL, json={"input": "x", "text": {"verbosity": "lowest"}})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "text.verbosity")


async def test_items_are_named_instead_of_sent(api: Api) -> None:
    one = await created(api)
    named = [{"type": "item_reference", "id": one["output"][0]["id"]}, {"role": "user", "content": "go on"}]
    await created(api, input=named)

    assert api.vllm.bodies[-1]["input"][0] == one["output"][0]
    await created(api, input=named, previous_response_id=one["id"])
    assert [item["role"] for item in api.vllm.bodies[-1]["input"]] == ["user", "assistant", "user"]
    answer = await api.client.post(URL, json={"input": [{"type": "item_reference", "id": "msg_none"}]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "input[0].id")


async def test_tokens_are_counted_of_the_whole_input(api: Api) -> None:
    one = await created(api)
    asked = {"input": "more", "previous_response_id": one["id"]}
    counted = await api.client.post(f"{URL}/input_tokens", json=asked)

    assert counted.json() == {"object": "response.input_tokens", "input_tokens": 3}
    assert [item["role"] for item in api.vllm.bodies[-1]["input"]] == ["user", "assistant", "user"]
    other = await api.of("bob").post(f"{URL}/input_tokens", json=asked)
    assert other.status_code == 404


async def test_input_items_are_listed(api: Api) -> None:
    made = await created(api, input=[{"role": "user", "content": word} for word in "abc"])

    async def page(query: str) -> tuple[str, dict[str, Any]]:
        listed = (await api.client.get(f"{URL}/{made['id']}/input_items?{query}")).json()
        return "".join(item["content"][0]["text"] for item in listed["data"]), listed

    assert (await page(""))[0] == "cba"
    text, listed = await page("order=asc&limit=2")
    assert (text, listed["has_more"], listed["last_id"]) == ("ab", True, listed["data"][1]["id"])
    assert (await page(f"order=asc&after={listed['last_id']}"))[0] == "c"
    for query in ("order=up", "limit=0", "limit=x", "after=msg_none"):
        assert (await api.client.get(f"{URL}/{made['id']}/input_items?{query}")).status_code == 400


async def test_deleted_response_is_gone(api: Api) -> None:
    made = await created(api)
    deleted = await api.client.delete(f"{URL}/{made['id']}")

    assert deleted.json() == {"id": made["id"], "object": "response", "deleted": True}
    assert (await api.client.get(f"{URL}/{made['id']}")).status_code == 404
    assert (await api.client.delete(f"{URL}/{made['id']}")).status_code == 404


async def test_response_of_another_key_is_as_an_unknown_one(api: Api) -> None:
    made = await created(api, "bob", background=True)

    async def tried(response_id: str) -> list[tuple[int, str]]:
        client, url = api.client, f"{URL}/{response_id}"
        item = [{"type": "item_reference", "id": "msg_1"}]
        answers = [
            await client.get(url),
            await client.get(f"{url}?stream=true"),
            await client.get(f"{url}/input_items"),
            await client.post(f"{url}/cancel"),
            await client.delete(url),
            await client.post(URL, json={"input": "x", "previous_response_id": response_id}),
            await client.post(URL, json={"input": item}),
        ]
        return [(answer.status_code, answer.text.replace(response_id, "ID")) for answer in answers]

    assert await tried(made["id"]) == await tried("resp_unknown")
    assert {status for status, _ in await tried(made["id"])} == {404}


async def test_response_of_a_listed_key_stays_with_the_key_when_the_list_changes(api: Api) -> None:
    before = clients_of(api.app, KeyStore(listed_keys(["alices-key", "bobs-key"])))
    made = (await before("alices-key").post(URL, json={"input": "hello"})).json()
    after = clients_of(api.app, KeyStore(listed_keys(["bobs-key", "alices-key"])))

    assert (await after("bobs-key").get(f"{URL}/{made['id']}")).status_code == 404
    assert (await after("alices-key").get(f"{URL}/{made['id']}")).json() == made


async def test_request_that_vllm_refuses_is_not_stored(api: Api) -> None:
    for fields in ({}, {"background": True}, {"background": True, "stream": True}):
        answer = await api.client.post(URL, json={"request_id": "resp_1", **fields})
        assert (answer.status_code, answer.json()["error"]["message"]) == (400, "input is missing")
        assert await api.responses.store.get("alice", "resp_1") is None


@pytest.mark.parametrize("stream", [False, True])
async def test_background_response_is_queued_then_complete(api: Api, stream: bool) -> None:
    api.vllm.held.clear()
    made = await created(api, background=True) if not stream else {}
    if stream:
        posted = asyncio.create_task(api.client.post(URL, json={"input": "x", "background": True, "stream": True}))
        await until(lambda: api.vllm.bodies)
        made = {"id": api.vllm.bodies[0]["request_id"], "status": "queued"}
    assert made["status"] == "queued"
    url = f"{URL}/{made['id']}"
    await found_as(api, made["id"], "in_progress")
    again = await api.client.post(URL, json={"input": "x", "previous_response_id": made["id"]})
    assert (again.status_code, "still in_progress" in again.text) == (400, True)

    api.vllm.held.set()
    found = await found_as(api, made["id"], "completed")
    assert found["output"][0]["content"][0]["text"] == "one two"
    events = events_of(await posted if stream else await api.client.get(f"{url}?stream=true"))
    assert events[-1]["response"] == found
    assert events_of(await api.client.get(f"{url}?stream=true&starting_after=3")) == events[4:]
    assert events_of(await api.client.get(f"{url}?stream=true&starting_after=99")) == []


@pytest.mark.parametrize("stream", [False, True])
async def test_events_of_a_background_response_are_stored_for_a_stream_alone(
    api: Api, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    written: list[list[str]] = []
    append = api.responses.store.append

    async def counted(row: int, first: int, events: list[str], attempt: int) -> bool:
        written.append(events)
        return await append(row, first, events, attempt)

    monkeypatch.setattr(api.responses.store, "append", counted)
    api.vllm.held.clear()
    posted = asyncio.create_task(
        api.client.post(URL, json={"input": "x", "background": True, "stream": stream, "request_id": "resp_1"})
    )
    await until(lambda: api.vllm.bodies)
    await found_as(api, "resp_1", "in_progress")
    api.vllm.held.set()
    found = await found_as(api, "resp_1", "completed")
    await posted

    assert found["output"][0]["content"][0]["text"] == "one two"
    stored = await api.responses.store.events("alice", "resp_1", 0)
    assert stored
    assert (bool(written), bool(stored[1])) == (stream, stream)


async def test_background_response_without_a_stream_is_stopped_by_another_worker(api: Api) -> None:
    api.vllm.held.clear()
    made = await created(api, background=True)
    await found_as(api, made["id"], "in_progress")
    await api.responses.store.cancel("alice", made["id"])

    await until(lambda: api.vllm.aborted == 1)


async def test_background_response_is_cancelled_and_its_listeners_end(api: Api) -> None:
    api.vllm.held.clear()
    posted = asyncio.create_task(api.client.post(URL, json={"input": "x", "background": True, "stream": True}))
    await until(lambda: api.vllm.bodies)
    url = f"{URL}/{api.vllm.bodies[0]['request_id']}"
    cancelled = await api.client.post(f"{url}/cancel")

    assert cancelled.json()["status"] == "cancelled"
    assert (await api.client.post(f"{url}/cancel")).json() == cancelled.json()
    await posted
    await api.client.get(f"{url}?stream=true")
    await until(lambda: api.vllm.aborted == 1)
    assert (await api.client.get(url)).json()["status"] == "cancelled"


async def test_response_whose_client_waits_is_not_cancelled_by_a_request(api: Api) -> None:
    made = await created(api)

    assert (await api.client.post(f"{URL}/{made['id']}/cancel")).status_code == 400


async def test_stream_that_breaks_is_stored_as_failed(api: Api) -> None:
    api.vllm.breaks = BrokenStreamError(HTTPStatus.SERVICE_UNAVAILABLE, "The engine died.")
    with pytest.raises(BrokenStreamError):
        await api.client.post(URL, json={"input": "x", "stream": True, "request_id": "resp_1"})
    await created(api, background=True, request_id="resp_2")

    for response_id in ("resp_1", "resp_2"):
        found = await found_as(api, response_id, "failed")
        assert found["error"] == {"code": "server_error", "message": "The engine died."}


async def test_store_that_is_away_is_a_503_before_anything_is_generated(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any, **__: Any) -> None:
        raise StoreUnavailableError("The job store cannot be used now: gone.")

    monkeypatch.setattr(api.responses.store, "create", away)

    assert (await api.client.post(URL, json={"input": "x"})).status_code == 503
    assert api.vllm.bodies == []
    assert (await created(api, store=False))["status"] == "completed"


async def test_stream_goes_on_after_the_store_was_away(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    read, calls = api.responses.store.events, 0

    async def away(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls % 2:
            raise StoreUnavailableError("The job store cannot be used now: gone.")
        return await read(*args)

    monkeypatch.setattr(api.responses.store, "events", away)
    asked = {"input": "x", "background": True, "stream": True, "request_id": "resp_1"}
    events = events_of(await api.client.post(URL, json=asked))
    assert kinds(events)[-1] == "completed"
    assert events_of(await api.client.get(f"{URL}/resp_1?stream=true")) == events


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"store": "no"}, "store"),
        ({"background": 1}, "background"),
        ({"background": True, "store": False}, "background"),
        ({"previous_response_id": 5}, "previous_response_id"),
        ({"request_id": ""}, "request_id"),
        ({"max_tool_calls": -1}, "max_tool_calls"),
        ({"max_tool_calls": True}, "max_tool_calls"),
        ({"request_id": "a\ud800"}, "request_id"),
        ({"request_id": "a\0"}, "request_id"),
        ({"previous_response_id": "a", "previous_input_messages": [{}]}, "previous_response_id"),
    ],
)
async def test_field_with_a_wrong_value_is_named(api: Api, fields: dict[str, Any], param: str) -> None:
    answer = await api.client.post(URL, content=json.dumps({"input": "x", **fields}))

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_request_id_is_used_once_by_each_key(api: Api) -> None:
    for key in ("alice", "bob"):
        assert (await created(api, key, request_id="mine"))["id"] == "mine"

    answer = await api.client.post(URL, json={"input": "x", "request_id": "mine"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "request_id")


async def test_request_id_of_a_response_that_failed_may_be_used_again(api: Api) -> None:
    api.vllm.breaks = BrokenStreamError(HTTPStatus.SERVICE_UNAVAILABLE, "The engine died.")
    await created(api, background=True, request_id="mine")
    await found_as(api, "mine", "failed")
    api.vllm.breaks = None

    assert (await created(api, request_id="mine"))["status"] == "completed"


async def failing(*_: Any, **__: Any) -> Any:
    raise ValueError("an error of ours")


@pytest.mark.parametrize("method", ["start", "finish"])
async def test_background_response_that_meets_an_error_of_ours_fails(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    api.vllm.held.clear()
    monkeypatch.setattr(api.responses.store, method, failing)
    made = await created(api, background=True)
    api.vllm.held.set()
    found = await found_as(api, made["id"], "failed")

    assert found["error"] == {"code": "server_error", "message": "The server made a mistake."}
    assert "an error of ours" in caplog.text


async def test_background_error_of_the_engine_is_logged(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    api.vllm.breaks = BrokenStreamError(HTTPStatus.SERVICE_UNAVAILABLE, "The engine died.")
    made = await created(api, background=True)
    await found_as(api, made["id"], "failed")

    assert f"background response {made['id']}: The engine died." in caplog.text


async def test_answer_whose_end_cannot_be_stored_reaches_its_client(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.responses.store, "finish", failing)
    made = await created(api)

    assert made["status"] == "completed"
    assert (await found_as(api, made["id"], "failed"))["error"]["message"] == "The server made a mistake."


async def test_response_that_was_stored_without_an_answer_of_the_store_is_forgotten(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = api.responses.store.create

    async def unanswered(*args: Any) -> None:
        await create(*args)
        raise StoreUnavailableError("The job store cannot be used now: gone.")

    with monkeypatch.context() as patched:
        patched.setattr(api.responses.store, "create", unanswered)
        assert (await api.client.post(URL, json={"input": "x", "request_id": "mine"})).status_code == 503
    await found_as(api, "mine", None)
    assert (await created(api, request_id="mine"))["status"] == "completed"


@pytest.mark.parametrize("method", ["discard", "finish"])
async def test_answer_does_not_wait_for_long_for_a_store_that_is_away(
    api: Api, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async def away(*_: Any, **__: Any) -> None:
        raise StoreUnavailableError("The job store cannot be used now: gone.")

    monkeypatch.setattr(record, "_PATIENCE_S", 0)
    with monkeypatch.context() as patched:
        patched.setattr(api.responses.store, method, away)
        asked = {"request_id": "mine"} if method == "discard" else {"request_id": "mine", "input": "x"}
        answer = await api.client.post(URL, json=asked)
        assert answer.status_code == (400 if method == "discard" else 200)
    await found_as(api, "mine", "completed" if method == "finish" else None)


async def test_stream_of_a_failed_response_has_one_end_wherever_it_is_resumed(api: Api) -> None:
    api.vllm.breaks = BrokenStreamError(HTTPStatus.SERVICE_UNAVAILABLE, "The engine died.")
    events = events_of(await api.client.post(URL, json={"input": "x", "background": True, "stream": True}))
    url = f"{URL}/{events[-1]['response']['id']}?stream=true"

    assert kinds(events).count("failed") == 1
    for after in range(len(events) + 1):
        resumed = events_of(await api.client.get(f"{url}&starting_after={after}"))
        assert resumed == events[after + 1 :]


async def test_stream_of_a_lost_response_has_an_end_all_the_same(api: Api) -> None:
    lost = read_create({"input": "x", "background": True, "stream": True, "request_id": "lost"})
    first = first_object(lost, "queued", 1, "m")
    new = NewResponse("alice", "lost", dumps(first), [], None, "ended", ResponseStatus.QUEUED, keeps_events=True)
    row = await api.responses.store.create(new, 1000)
    await api.responses.store.append(row, 0, ['{"type":"response.created","sequence_number":0}'])
    await api.responses.store.fail_lost()

    for after, expected in (("", ["created", "failed"]), ("&starting_after=0", ["failed"]), ("&starting_after=1", [])):
        answer = await api.client.get(f"{URL}/lost?stream=true{after}")
        assert kinds(events_of(answer)) == expected


async def test_stream_that_its_client_leaves_leaves_nothing(api: Api) -> None:
    api.vllm.held.clear()
    made = await created(api, background=True)
    stream = api.responses.events("alice", made["id"], 0)
    reading = asyncio.ensure_future(anext(stream))
    await until(lambda: api.responses._following._followers)
    reading.cancel()
    await asyncio.wait((reading,))

    assert api.responses._following._followers == {}


@pytest.mark.parametrize("item_id", ["", "a/b", "a\n", "x" * 513, "x" * 12_000, 5])
async def test_id_of_an_item_that_no_store_or_path_can_have_is_refused(api: Api, item_id: Any) -> None:
    items = [{"role": "user", "content": "x"}, {"id": item_id, "role": "user", "content": "x"}]
    refused = await api.client.post("/v1/responses", json={"input": items})
    await created(api, input=[{**items[1], "id": "x" * 512}, {**items[1], "id": None}])

    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input[1].id")
    assert "1 to 512 printable characters" in refused.json()["error"]["message"]
    assert len(api.vllm.bodies) == 1
