"""/v1/conversations, and responses that are turns of one, over a fake of vLLM."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import openai
import pytest
from openai.types.conversations import Conversation, ConversationDeletedResource, ConversationItem, ConversationItemList
from openai.types.responses import Response
from pydantic import TypeAdapter

from gptoss_bento.http.errors import BrokenStreamError
from gptoss_bento.http.fields.served_model import GPT_OSS
from gptoss_bento.responses.routes import ResponsesApi
from gptoss_bento.state.database import StoreUnavailableError
from tests.unit.responses.conftest import Api, clients_of
from tests.unit.responses.test_routes import created, events_of, found_as

URL = "/v1/conversations"
RESPONSES = "/v1/responses"
USER = {"role": "user", "content": "Hello"}


async def asked(api: Api, method: str, path: str, key: str = "alice", status: int = 200, **json: Any) -> Any:
    answer = await api.of(key).request(method, f"{URL}{path}", json=json if method == "POST" else None)
    assert answer.status_code == status, answer.text
    return answer.json()


async def conversation(api: Api, key: str = "alice", **fields: Any) -> str:
    made = await asked(api, "POST", "", key, **fields)
    return str(made["id"])


async def turn(api: Api, conversation_id: str, text: str = "Hello", **fields: Any) -> dict[str, Any]:
    """A response in the conversation, whose item has an id of its own as the engine's have."""
    api.vllm.item_id = f"msg_{len(api.vllm.bodies)}"
    return await created(api, input=text, conversation=conversation_id, **fields)


async def texts(api: Api, conversation_id: str) -> list[str]:
    listed = await asked(api, "GET", f"/{conversation_id}/items?order=asc&limit=100")
    return [item["content"][0]["text"] for item in listed["data"]]


def sdk(api: Api) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key="alice", base_url="http://test/v1", http_client=api.client, max_retries=0)  # type: ignore[arg-type]  # it has what httpx2 has


async def test_objects_are_those_of_openais_schema(api: Api) -> None:
    made = await asked(api, "POST", "", metadata={"a": "b"}, items=[USER])
    Conversation.model_validate(made, strict=True)
    path = f"/{made['id']}"
    items = [
        {"role": "assistant", "content": "Hi"},
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "21"},
        {"role": "user", "content": [{"text": "untyped"}]},
    ]
    added = await asked(api, "POST", f"{path}/items", items=items)
    ConversationItemList.model_validate(added, strict=True)
    listed = await asked(api, "GET", f"{path}/items")
    ConversationItemList.model_validate(listed, strict=True)
    one = listed["data"][0]

    assert [item["type"] for item in added["data"]] == [
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
        "message",
    ]
    assert listed["data"][:-1] == added["data"][::-1]
    TypeAdapter(ConversationItem).validate_python(one, strict=True)
    assert await asked(api, "GET", f"{path}/items/{one['id']}") == one
    assert await asked(api, "DELETE", f"{path}/items/{one['id']}") == made
    assert await asked(api, "GET", path) == made
    changed = await asked(api, "POST", path, metadata={"c": "d"})
    assert changed == {**made, "metadata": {"c": "d"}}
    deleted = await asked(api, "DELETE", path)
    ConversationDeletedResource.model_validate(deleted, strict=True)
    await asked(api, "GET", path, status=404)


async def test_sdk_lists_all_items_page_by_page(api: Api) -> None:
    client = sdk(api)
    made = await client.conversations.create()
    for first in (0, 20):
        numbers = [{"role": "user", "content": str(first + i)} for i in range(20)]
        await client.conversations.items.create(made.id, items=numbers)  # type: ignore[arg-type]
    listed = [item async for item in client.conversations.items.list(made.id, order="asc", limit=7)]
    newest = await client.conversations.items.list(made.id, limit=1, include=["message.output_text.logprobs"])

    assert [item.content[0].text for item in listed if item.type == "message"] == list(map(str, range(40)))  # type: ignore[union-attr]
    assert newest.data == listed[-1:]
    ConversationItemList.model_validate(await asked(api, "GET", f"/{await conversation(api)}/items"), strict=True)


async def test_turns_have_the_items_before_them_as_a_continued_response_has(api: Api) -> None:
    developer = {"role": "developer", "content": "Be brief."}
    conversation_id = await conversation(api, items=[developer])
    await turn(api, conversation_id, "one")
    await turn(api, conversation_id, "two")
    by_conversation = api.vllm.bodies[-1]
    first = await created(api, input=[developer, {"role": "user", "content": "one"}])
    await created(api, input="two", previous_response_id=first["id"])
    by_response = api.vllm.bodies[-1]

    def without_ids(body: dict[str, Any]) -> Any:
        return [{**item, "id": "", "type": "message"} for item in body["input"]]

    said = [item["content"][0]["text"] for item in by_conversation["input"]]
    assert said == ["Be brief.", "one", "one two", "two"]
    assert without_ids(by_conversation) == without_ids(by_response)
    assert by_conversation.keys() == by_response.keys()
    assert await texts(api, conversation_id) == [*said, "one two"]


@pytest.mark.parametrize("how", [{}, {"stream": True}, {"background": True}, {"background": True, "stream": True}])
async def test_answer_of_a_turn_is_in_the_conversation_however_it_is_asked_for(api: Api, how: dict[str, Any]) -> None:
    conversation_id = await conversation(api)
    named = {"id": conversation_id}
    answer = await api.client.post(
        RESPONSES, json={"input": "Hi", "conversation": named, "request_id": "resp_1", **how}
    )
    assert answer.status_code == 200
    found = await found_as(api, "resp_1", "completed")

    assert found["conversation"] == named
    Response.model_validate(found, strict=True)
    if how.get("stream"):
        assert {event["response"]["conversation"]["id"] for event in events_of(answer) if "response" in event} == {
            conversation_id
        }
    assert await texts(api, conversation_id) == ["Hi", "one two"]


async def test_turn_that_was_cut_is_added_with_its_status(api: Api) -> None:
    conversation_id = await conversation(api)
    api.vllm.is_cut = True
    await turn(api, conversation_id)

    listed = await asked(api, "GET", f"/{conversation_id}/items")
    assert [item["status"] for item in listed["data"]] == ["incomplete", "completed"]


async def test_turn_without_an_answer_leaves_the_conversation_as_it_was(api: Api) -> None:
    conversation_id = await conversation(api)
    api.vllm.breaks = BrokenStreamError(HTTPStatus.SERVICE_UNAVAILABLE, "The engine died.")
    failed = await turn(api, conversation_id, background=True)
    await found_as(api, failed["id"], "failed")
    api.vllm.breaks = None
    api.vllm.held.clear()
    cancelled = await turn(api, conversation_id, background=True)
    await api.client.post(f"{RESPONSES}/{cancelled['id']}/cancel")
    api.vllm.held.set()
    refused = await api.client.post(RESPONSES, json={"conversation": conversation_id})
    await turn(api, conversation_id, "again")

    assert refused.status_code == 400
    assert await texts(api, conversation_id) == ["again", "one two"]


async def test_conversation_is_locked_while_a_response_is_generated_in_it(api: Api) -> None:
    conversation_id = await conversation(api, items=[{"id": "msg_x", **USER}])
    api.vllm.held.clear()
    running = await turn(api, conversation_id, background=True)
    await found_as(api, running["id"], "in_progress")
    path = f"{URL}/{conversation_id}"
    refused = [
        await api.client.post(RESPONSES, json={"input": "x", "conversation": conversation_id}),
        await api.client.post(RESPONSES, json={"input": "x", "conversation": conversation_id, "background": True}),
        await api.client.post(f"{path}/items", json={"items": [USER]}),
        await api.client.delete(f"{path}/items/msg_x"),
    ]
    for answer in refused:
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conversation_locked"), answer.text
    with pytest.raises(openai.ConflictError, match="Another request"):
        await sdk(api).responses.create(model="m", input="x", conversation=conversation_id)
    assert (await asked(api, "POST", f"/{conversation_id}", metadata={"a": "b"}))["metadata"] == {"a": "b"}
    counted = await api.client.post(f"{RESPONSES}/input_tokens", json={"input": "x", "conversation": conversation_id})
    assert counted.json()["input_tokens"] == 2

    api.vllm.held.set()
    await found_as(api, running["id"], "completed")
    await turn(api, conversation_id, "next")
    assert await texts(api, conversation_id) == ["Hello", "Hello", "one two", "next", "one two"]


async def test_turn_whose_conversation_has_changed_since_it_was_read_is_refused(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation_id = await conversation(api)
    read = api.responses.conversations.history_for_turn

    async def overtaken(owner: str, of: str) -> Any:
        found = await read(owner, of)
        monkeypatch.undo()
        await turn(api, conversation_id, "first")
        return found

    monkeypatch.setattr(api.responses.conversations, "history_for_turn", overtaken)
    late = await api.client.post(RESPONSES, json={"input": "late", "conversation": conversation_id})

    assert (late.status_code, late.json()["error"]["param"]) == (409, "conversation")
    assert await texts(api, conversation_id) == ["first", "one two"]


async def test_many_turns_that_come_together_are_one_after_another_or_refused(api: Api) -> None:
    conversation_id = await conversation(api)
    bodies = [
        {"input": str(number), "conversation": conversation_id, "stream": bool(number % 2)} for number in range(12)
    ]
    answers = await asyncio.gather(*(api.client.post(RESPONSES, json=body) for body in bodies))
    statuses = [answer.status_code for answer in answers]
    answered = {str(number) for number, status in enumerate(statuses) if status == 200}

    assert set(statuses) <= {200, 409}
    assert answered
    assert sorted(text for text in await texts(api, conversation_id) if text.isdigit()) == sorted(answered)


async def test_conversation_that_is_deleted_while_a_response_is_generated_stays_deleted(api: Api) -> None:
    conversation_id = await conversation(api)
    api.vllm.held.clear()
    running = await turn(api, conversation_id, background=True)
    await found_as(api, running["id"], "in_progress")
    await asked(api, "DELETE", f"/{conversation_id}")
    api.vllm.held.set()

    assert (await found_as(api, running["id"], "completed"))["conversation"] == {"id": conversation_id}
    await asked(api, "GET", f"/{conversation_id}/items", status=404)
    gone = await api.client.post(RESPONSES, json={"input": "x", "conversation": conversation_id})
    assert (gone.status_code, gone.json()["error"]["param"]) == (404, "conversation")


async def test_response_of_a_conversation_is_continued_with_the_items_that_it_was_made_from(api: Api) -> None:
    conversation_id = await conversation(api, items=[USER])
    second = await turn(api, conversation_id, "two")
    await turn(api, conversation_id, "three")
    branch = await created(api, input="other", previous_response_id=second["id"])
    await created(api, input="further", previous_response_id=branch["id"])
    said = [item["content"][0]["text"] for item in api.vllm.bodies[-1]["input"]]

    assert said == ["Hello", "two", "one two", "other", "one two", "further"]
    assert "conversation" not in branch


async def test_deleted_response_leaves_its_items_in_the_conversation(api: Api) -> None:
    conversation_id = await conversation(api)
    made = await turn(api, conversation_id)
    await api.client.delete(f"{RESPONSES}/{made['id']}")

    assert await texts(api, conversation_id) == ["Hello", "one two"]


async def test_items_of_a_conversation_are_named_instead_of_sent(api: Api) -> None:
    one, other = await conversation(api, items=[{"id": "msg_x", **USER}]), await conversation(api)
    reference = {"type": "item_reference", "id": "msg_x"}
    await asked(api, "POST", f"/{other}/items", items=[reference])
    await created(api, input=[reference])

    assert api.vllm.bodies[-1]["input"][0]["content"] == [{"type": "input_text", "text": "Hello"}]
    assert await texts(api, other) == ["Hello"]
    unknown = await asked(api, "POST", f"/{one}/items", status=404, items=[{**reference, "id": "msg_none"}])
    assert unknown["error"]["param"] == "items[0].id"
    taken = await asked(api, "POST", f"/{other}/items", status=400, items=[reference])
    assert taken["error"]["param"] == "items[0].id"


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("", {"items": [USER] * 21}, "items"),
        ("", {"items": {}}, "items"),
        ("", {"items": ["x"]}, "items[0]"),
        ("", {"items": [{**USER, "id": "a/b"}]}, "items[0].id"),
        ("", {"items": [{**USER, "id": "a"}, {**USER, "id": "a"}]}, "items[1].id"),
        ("", {"items": [{"role": "user", "content": [{"type": "input_image"}]}]}, "items[0].content[0].type"),
        ("", {"items": [{"type": "future"}]}, "items"),
        ("", {"metadata": {str(i): "x" for i in range(17)}}, "metadata"),
        ("", {"metadata": {"a" * 65: "x"}}, "metadata"),
        ("", {"metadata": {"a": 1}}, "metadata.a"),
        ("", {"metadata": "a"}, "metadata"),
        ("", {"item": []}, "item"),
        ("/ID", {}, "metadata"),
        ("/ID", {"metadata": {"a": "x" * 513}}, "metadata.a"),
        ("/ID/items", {}, "items"),
        ("/ID/items?include=all", {"items": []}, "include"),
    ],
)
async def test_field_with_a_wrong_value_is_named(api: Api, path: str, fields: dict[str, Any], param: str) -> None:
    api.vllm.unread = "future"
    conversation_id = await conversation(api)
    refused = await asked(api, "POST", path.replace("ID", conversation_id), status=400, **fields)

    assert refused["error"]["param"] == param, refused


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"previous_response_id": "resp_1"}, "conversation", "previous_response_id"),
        ({"previous_input_messages": [{}]}, "conversation", "previous_input_messages"),
        ({"store": False}, "conversation", "stored"),
        ({"conversation": 7}, "conversation", "7"),
        ({"conversation": {"name": "x"}}, "conversation", "id"),
        ({"conversation": ""}, "conversation", "id"),
    ],
)
async def test_conversation_that_a_response_cannot_have_is_refused(
    api: Api, fields: dict[str, Any], param: str, words: str
) -> None:
    answer = await api.client.post(RESPONSES, json={"input": "x", "conversation": "conv_1", **fields})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert words in answer.json()["error"]["message"]
    assert api.vllm.bodies == []


@pytest.mark.parametrize("query", ["after=msg_none", "limit=0", "limit=101", "order=up", "include%5B%5D=x"])
async def test_query_with_a_wrong_value_is_refused(api: Api, query: str) -> None:
    conversation_id = await conversation(api)
    refused = await asked(api, "GET", f"/{conversation_id}/items?{query}", status=400)

    assert refused["error"]["param"] == query.partition("=")[0].partition("%")[0]


async def test_conversation_of_another_key_is_as_an_unknown_one(api: Api) -> None:
    made = await conversation(api, "bob", items=[{"id": "msg_x", **USER}])

    async def tried(conversation_id: str) -> list[tuple[int, str]]:
        client, url = api.client, f"{URL}/{conversation_id}"
        answers = [
            await client.get(url),
            await client.post(url, json={"metadata": {}}),
            await client.delete(url),
            await client.post(f"{url}/items", json={"items": [USER]}),
            await client.get(f"{url}/items"),
            await client.get(f"{url}/items?after=msg_x"),
            await client.get(f"{url}/items/msg_x"),
            await client.delete(f"{url}/items/msg_x"),
            await client.post(RESPONSES, json={"input": "x", "conversation": conversation_id}),
            await client.post(f"{RESPONSES}/input_tokens", json={"input": "x", "conversation": conversation_id}),
            await client.post(RESPONSES, json={"input": [{"type": "item_reference", "id": "msg_x"}]}),
        ]
        return [(answer.status_code, answer.text.replace(conversation_id, "ID")) for answer in answers]

    assert await tried(made) == await tried("conv_unknown")
    assert {status for status, _ in await tried(made)} == {404}
    await asked(api, "GET", f"/{made}/items/msg_x", "bob")


async def test_server_that_is_set_to_store_nothing_takes_no_items(api: Api) -> None:
    before = await conversation(api, items=[USER])
    app = ResponsesApi(api.vllm, api.responses, may_store=False)
    client = clients_of(app, api.keys)("alice")

    for path, fields in (("", {}), (f"/{before}/items", {"items": [USER]})):
        answer = await client.post(f"{URL}{path}", json=fields)
        assert (answer.status_code, "VLLM_ENABLE_RESPONSES_API_STORE" in answer.text) == (400, True)
    answer = await client.post(RESPONSES, json={"input": "x", "conversation": before})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "conversation")
    assert (await client.get(f"{URL}/{before}")).status_code == 200
    assert (await client.delete(f"{URL}/{before}")).status_code == 200


async def test_store_that_is_away_is_a_503_before_anything_is_generated(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation_id = await conversation(api)

    async def away(*_: Any, **__: Any) -> None:
        raise StoreUnavailableError("The job store cannot be used now: gone.")

    monkeypatch.setattr(api.responses.conversations.store, "history", away)
    answer = await api.client.post(RESPONSES, json={"input": "x", "conversation": conversation_id})

    assert (answer.status_code, api.vllm.bodies) == (503, [])


async def test_conversation_that_is_full_takes_no_more(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptoss_bento.responses.conversations.MOST_ITEMS", 2)
    conversation_id = await conversation(api, items=[USER, USER])

    await asked(api, "POST", f"/{conversation_id}/items", status=400, items=[USER])
    answer = await api.client.post(RESPONSES, json={"input": "x", "conversation": conversation_id})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "conversation")


async def test_conversations_are_cleaned_up_with_the_responses(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.responses.conversations, "_most", 1)
    oldest, newest = await conversation(api), await conversation(api)
    await api.responses._evict()

    await asked(api, "GET", f"/{oldest}", status=404)
    await asked(api, "GET", f"/{newest}")
    await api.responses._clean()
    assert await api.responses.conversations.store.clean() == 0


@pytest.mark.parametrize("kind", ["function_call", "custom_tool_call"])
async def test_output_that_is_added_is_checked_with_the_call_before_it(api: Api, kind: str) -> None:
    text = {"arguments": "{}"} if kind == "function_call" else {"input": "x"}
    calls = [{"type": kind, "call_id": name, "name": "f", **text} for name in "cd"]
    conversation_id = await conversation(api, items=[USER, *calls])
    output = {"type": f"{kind}_output", "call_id": "c", "output": "21"}
    await asked(api, "POST", f"/{conversation_id}/items", items=[output])
    assert [item["call_id"] for item in api.vllm.bodies[-1]["input"]] == ["c", "c"]

    await asked(api, "POST", f"/{conversation_id}/items", items=[USER])
    assert [item["type"] for item in api.vllm.bodies[-1]["input"]] == ["message"]


async def test_items_are_checked_with_all_before_them_where_a_template_may_want_an_order(api: Api) -> None:
    app = ResponsesApi(api.vllm, api.responses, model=replace(GPT_OSS, writes_harmony=False))
    conversation_id = await conversation(api, items=[USER])
    answer = await clients_of(app, api.keys)("alice").post(
        f"{URL}/{conversation_id}/items", json={"items": [{"role": "assistant", "content": "Hi"}]}
    )

    assert answer.status_code == 200
    assert [item["role"] for item in api.vllm.bodies[-1]["input"]] == ["user", "assistant"]


async def test_conversation_of_too_many_bytes_takes_no_more_and_nothing_is_rendered(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.responses.conversations, "_most_bytes", 1000)
    long = {"id": "msg_long", "role": "user", "content": "\u00e4" * 300}
    conversation_id = await conversation(api, items=[long])
    path = f"/{conversation_id}/items"
    rendered = len(api.vllm.bodies)
    refused = [
        await asked(api, "POST", path, status=400, items=[{**long, "id": "msg_2"}]),
        await asked(api, "POST", "", status=400, items=[{**USER, "content": "x" * 900}]),
        await asked(api, "POST", "", status=400, items=[{"id": "msg_long"}, {"id": "msg_long"}]),
    ]
    assert [answer["error"]["param"] for answer in refused] == ["items"] * 3
    assert "1,000 bytes (MAX_OPENAI_BODY_BYTES)" in refused[0]["error"]["message"]
    assert len(api.vllm.bodies) == rendered

    await turn(api, conversation_id, "x" * 300)  # it begins below the bound
    rendered = len(api.vllm.bodies)
    full = await api.client.post(RESPONSES, json={"input": "x", "conversation": conversation_id})
    await asked(api, "POST", path, status=400, items=[USER])
    assert (full.status_code, full.json()["error"]["param"]) == (400, "conversation")
    assert "1,000 bytes" in full.json()["error"]["message"]
    assert len(api.vllm.bodies) == rendered


async def test_item_of_a_turn_under_the_id_of_another_is_refused(api: Api) -> None:
    item = {"id": "msg_x", **USER}
    conversation_id = await conversation(api, items=[item])
    rendered = len(api.vllm.bodies)
    other = {"id": "msg_y", "role": "user", "content": "other"}
    for given, place in (([other, item], 1), ([other, USER, other], 2), ([{"id": "msg_x"}, item], 1)):
        for path in (RESPONSES, f"{RESPONSES}/input_tokens"):
            answer = await api.client.post(path, json={"conversation": conversation_id, "input": given})
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, f"input[{place}].id"), answer.text
    assert len(api.vllm.bodies) == rendered

    await turn(api, conversation_id, [{"type": "item_reference", "id": "msg_x"}, other])  # type: ignore[arg-type]
    assert await texts(api, conversation_id) == ["Hello", "other", "one two"]
