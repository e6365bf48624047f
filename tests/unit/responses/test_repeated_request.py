"""Requests of /v1/responses that come again with the same Idempotency-Key, over a fake of vLLM."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import httpx
import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from gptoss_bento.http.errors import BrokenStreamError
from gptoss_bento.state.idempotency import KEPT_MS
from tests.stores import Clock
from tests.unit.responses.conftest import Api
from tests.unit.responses.test_routes import URL, created, events_of, found_as, kinds
from tests.waiting import until


async def asked(api: Api, idempotency_key: str = "k", owner: str = "alice", **fields: Any) -> httpx.Response:
    headers = {"Idempotency-Key": idempotency_key}
    return await api.of(owner).post(URL, json={"input": "x", **fields}, headers=headers)


def is_replayed(answer: httpx.Response) -> bool:
    return bool(answer.headers.get("idempotent-replayed") == "true")


async def test_second_request_gets_the_answer_of_the_first(api: Api) -> None:
    first = await asked(api, metadata={"a": "b"})
    second = await asked(api, metadata={"a": "b"})

    assert (first.status_code, second.status_code) == (200, 200)
    assert second.json() == first.json()
    assert (is_replayed(first), is_replayed(second)) == (False, True)
    assert len(api.vllm.bodies) == 1


async def test_key_with_another_request_is_a_422(api: Api) -> None:
    await asked(api)
    for fields in ({"input": "y"}, {"background": True}, {"instructions": "x"}):
        answer = await asked(api, **fields)
        assert answer.status_code == 422
        assert "used with another request" in answer.json()["error"]["message"]
    assert len(api.vllm.bodies) == 1


async def test_order_of_the_fields_makes_no_other_request(api: Api) -> None:
    made = []
    for text in ('{"input": "x", "metadata": {"a": "1", "b": "2"}}', '{"metadata":{"b":"2","a":"1"},"input":"x"}'):
        answer = await api.client.post(URL, content=text, headers={"Idempotency-Key": "k"})
        made.append(answer.json())

    assert made[0] == made[1]


async def test_keys_of_two_owners_are_separate(api: Api) -> None:
    first, other = await asked(api), await asked(api, owner="bob", input="y")

    assert (first.status_code, other.status_code) == (200, 200)
    assert first.json()["id"] != other.json()["id"]


@pytest.mark.parametrize("value", ["", " ", "x" * 256, "\x7f"])
async def test_key_that_cannot_be_kept_is_a_400(api: Api, value: str) -> None:
    answer = await asked(api, value)

    assert (answer.status_code, "Idempotency-Key must be 1 to 255" in answer.text) == (400, True)
    assert api.vllm.bodies == []


async def test_running_response_whose_client_waits_is_a_409(api: Api) -> None:
    api.vllm.held.clear()
    first = asyncio.create_task(asked(api))
    await until(lambda: api.vllm.bodies)
    second = await asked(api)
    api.vllm.held.set()

    assert (second.status_code, second.headers["retry-after"]) == (409, "1")
    answered = (await first).json()
    assert (await asked(api)).json() == answered


async def test_background_response_is_answered_as_it_is_now(api: Api) -> None:
    api.vllm.held.clear()
    first = (await asked(api, background=True)).json()
    await found_as(api, first["id"], "in_progress")
    running = await asked(api, background=True)
    api.vllm.held.set()
    await found_as(api, first["id"], "completed")
    ended = await asked(api, background=True)

    assert [each.json()["status"] for each in (running, ended)] == ["in_progress", "completed"]
    assert {each.json()["id"] for each in (running, ended)} == {first["id"]}
    assert len(api.vllm.bodies) == 1


async def test_events_of_a_background_response_are_followed_by_the_second_request(api: Api) -> None:
    api.vllm.held.clear()
    streams = [asyncio.create_task(asked(api, background=True, stream=True))]
    await until(lambda: api.vllm.bodies)
    streams.append(asyncio.create_task(asked(api, background=True, stream=True)))
    api.vllm.held.set()
    first, second = [events_of(await each) for each in streams]

    assert first == second
    assert kinds(first)[-1] == "completed"
    assert len(api.vllm.bodies) == 1


async def test_stream_whose_client_waited_is_made_again_of_its_answer(api: Api) -> None:
    for calls in (False, True):
        api.vllm.calls = calls
        first, second = [events_of(await asked(api, f"k{calls}", stream=True)) for _ in range(2)]
        for event in second:
            TypeAdapter(ResponseStreamEvent).validate_python(event, strict=True)
        assert [event["sequence_number"] for event in second] == list(range(len(second)))
        assert second[-1] == {**first[-1], "sequence_number": len(second) - 1}
        assert [event["delta"] for event in second if event["type"].endswith(".delta")] == ["one two"]
    assert len(api.vllm.bodies) == 2


async def test_request_without_an_answer_may_come_again(api: Api) -> None:
    api.vllm.breaks = BrokenStreamError(HTTPStatus.SERVICE_UNAVAILABLE, "The engine died.")
    with pytest.raises(BrokenStreamError):
        await asked(api, stream=True)
    api.vllm.breaks = None
    again = events_of(await asked(api, stream=True))
    api.vllm.held.clear()
    left = asyncio.create_task(asked(api, "left", request_id="left"))
    await until(lambda: len(api.vllm.bodies) == 3)
    left.cancel()
    await found_as(api, "left", "cancelled")
    api.vllm.held.set()

    assert kinds(again)[-1] == "completed"
    assert (await asked(api, "left", request_id="left")).json()["status"] == "completed"
    assert len(api.vllm.bodies) == 4


async def test_background_response_that_failed_stays_the_answer(api: Api) -> None:
    api.vllm.breaks = BrokenStreamError(HTTPStatus.BAD_REQUEST, "not possible")
    made = (await asked(api, background=True)).json()
    failed = await found_as(api, made["id"], "failed")

    assert (await asked(api, background=True)).json() == failed


async def test_refused_request_may_come_again(api: Api) -> None:
    for fields in ({}, {"background": True}):
        refused = await api.client.post(URL, json=fields, headers={"Idempotency-Key": "k"})
        assert (refused.status_code, refused.json()["error"]["message"]) == (400, "input is missing")
    assert (await asked(api)).status_code == 200


async def test_deleted_answer_is_a_410(api: Api) -> None:
    made = (await asked(api)).json()
    await api.client.delete(f"{URL}/{made['id']}")
    answer = await asked(api)

    assert (answer.status_code, "not kept any more" in answer.text) == (410, True)
    assert len(api.vllm.bodies) == 1


async def test_key_may_be_used_again_after_a_day(api: Api) -> None:
    first = (await asked(api)).json()
    clock = api.responses.store.clock
    assert isinstance(clock, Clock)
    clock.now += KEPT_MS

    assert (await asked(api, input="y")).json()["id"] != first["id"]


async def test_concurrent_requests_make_one_response(api: Api) -> None:
    api.vllm.held.clear()
    asks = [asyncio.create_task(asked(api)) for _ in range(5)]
    background = [asyncio.create_task(asked(api, "b", background=True)) for _ in range(5)]
    await until(lambda: len(api.vllm.bodies) == 2 and sum(each.done() for each in asks) == 4)
    api.vllm.held.set()
    answers = [await each for each in asks]
    made = [await each for each in background]

    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409]
    assert {answer.status_code for answer in made} == {200}
    assert len({answer.json()["id"] for answer in made}) == 1


async def test_request_that_stores_nothing_is_answered_each_time(api: Api) -> None:
    made = [(await asked(api, store=False)).json()["id"] for _ in range(2)]

    assert made[0] != made[1]
    await created(api)
