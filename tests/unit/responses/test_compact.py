"""POST /v1/responses/compact over a fake of vLLM, and its item in later requests."""

from __future__ import annotations

from typing import Any
from unittest.mock import AsyncMock

import httpx
import pytest
from openai.types.responses import ResponseCompactionItem, ResponseUsage
from starlette.responses import JSONResponse

from gptoss_bento.responses.compaction import compaction_item, seal, unseal
from gptoss_bento.responses.summary import SUMMARY_TOKENS
from tests.unit.responses.conftest import Api
from tests.unit.responses.test_websocket import connected

URL = "/v1/responses/compact"
USERS = {"type": "message", "role": "user", "content": "My name is Ada."}
ASSISTANTS = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello Ada."}]}


async def compacted(api: Api, key: str = "alice", **fields: Any) -> httpx.Response:
    return await api.of(key).post(URL, json={"model": "m", **fields})


def read(body: dict[str, Any]) -> list[str]:
    return [item["content"][0]["text"] for item in body["input"]]


async def test_compaction_has_the_users_messages_and_a_summary(api: Api) -> None:
    answer = await compacted(api, input=[USERS, ASSISTANTS, USERS], instructions="Be kind.")

    assert answer.status_code == 200, answer.text
    made = answer.json()
    assert made["object"] == "response.compaction"
    assert [item["type"] for item in made["output"]] == ["message", "message", "compaction"]
    kept = made["output"][0]
    assert (kept["role"], kept["status"]) == ("user", "completed")
    assert kept["content"] == [{"type": "input_text", "text": "My name is Ada."}]
    ResponseCompactionItem.model_validate(made["output"][2], strict=True)
    ResponseUsage.model_validate(made["usage"], strict=True)
    assert unseal(made["output"][2]["encrypted_content"]) == "one two"


async def test_compaction_asks_the_model_for_a_summary(api: Api) -> None:
    await compacted(api, input=[USERS, ASSISTANTS], instructions="Be kind.")

    body = api.vllm.bodies[0]
    assert read(body)[1] == "Hello Ada."
    assert "Write a summary" in read(body)[2]
    assert (body["instructions"], body["max_output_tokens"]) == ("Be kind.", SUMMARY_TOKENS)
    assert (body["reasoning"], body["store"], body["stream"]) == ({"effort": "low"}, False, False)


async def test_compaction_reads_a_stored_conversation_of_its_key(api: Api) -> None:
    stored = (await api.client.post("/v1/responses", json={"input": "first"})).json()["id"]
    answer = await compacted(api, previous_response_id=stored)
    others = await compacted(api, "bob", previous_response_id=stored)

    assert read(api.vllm.bodies[1])[:2] == ["first", "one two"]
    assert [item["type"] for item in answer.json()["output"]] == ["message", "compaction"]
    assert others.status_code == 404


async def test_compaction_is_read_as_a_summary_again(api: Api) -> None:
    output = (await compacted(api, input=[USERS, ASSISTANTS])).json()["output"]
    answer = await api.client.post("/v1/responses", json={"input": [*output, USERS]})
    continued = await api.client.post(
        "/v1/responses", json={"input": "on", "previous_response_id": answer.json()["id"], "store": False}
    )

    assert continued.status_code == 200
    texts = read(api.vllm.bodies[1])
    assert [texts[0], texts[2]] == ["My name is Ada."] * 2
    assert texts[1].startswith("This is a summary of the conversation so far")
    assert texts[1].endswith("\n\none two")
    assert read(api.vllm.bodies[2])[:3] == texts
    items = (await api.client.get(f"/v1/responses/{answer.json()['id']}/input_items?order=asc")).json()["data"]
    assert items[1] == output[1]


async def test_compaction_starts_a_new_chain_over_a_websocket(api: Api) -> None:
    output = (await compacted(api, input=[USERS, ASSISTANTS])).json()["output"]
    async with connected(api) as connection:
        final = (await connection.turn(input=[*output, USERS], store=False))[-1]["response"]
        await connection.turn(input="on", store=False, previous_response_id=final["id"])

    assert read(api.vllm.bodies[2])[:3] == read(api.vllm.bodies[1])


@pytest.mark.parametrize(
    ("words", "is_cut", "why"),
    [(["one"], True, "it was cut at 2 tokens"), ([" ", "\n"], False, "the model wrote none")],
)
async def test_compaction_without_a_whole_summary_is_refused(
    api: Api, words: list[str], is_cut: bool, why: str
) -> None:
    api.vllm.words, api.vllm.is_cut = words, is_cut

    answer = await compacted(api, input="hello")

    assert answer.status_code == 422
    assert answer.json()["error"]["message"].startswith(f"There is no summary: {why}.")


async def test_compaction_whose_client_has_left_ends_without_an_error(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM's answer is `null` then."""
    answers = AsyncMock(return_value=JSONResponse(None))
    monkeypatch.setattr(api.vllm, "_answer", answers)

    assert (await compacted(api, input="hello")).text == "null"
    answers.assert_awaited_once()


@pytest.mark.parametrize(
    ("fields", "param"), [({}, "input"), ({"input": []}, "input"), ({"input": 7}, "input"), ({"input": ""}, "input")]
)
async def test_compaction_of_nothing_is_refused(api: Api, fields: dict[str, Any], param: str) -> None:
    answer = await compacted(api, **fields)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert api.vllm.bodies == []


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "is not what"), ("gAAAA", "is not what"), (seal("x")[:-1], "is not what"), (7, "is not what")],
)
async def test_compaction_of_another_server_is_refused(api: Api, content: Any, words: str) -> None:
    item = {**compaction_item("x"), "encrypted_content": content}

    answer = await api.client.post("/v1/responses", json={"input": [USERS, item]})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "input[1].encrypted_content"
    assert words in answer.json()["error"]["message"]


@pytest.mark.parametrize("summary", ["plain", "ü\n🙂 <|end|>", ""])
def test_compaction_content_is_unsealed_as_it_was(summary: str) -> None:
    assert unseal(seal(summary)) == summary
