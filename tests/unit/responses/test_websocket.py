"""WebSocket mode of /v1/responses, over a fake of vLLM."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import pytest
from openai.types.responses import ResponsesServerEvent
from pydantic import TypeAdapter
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gptoss_bento.access.admission import Admission
from gptoss_bento.access.authentication import Authentication
from gptoss_bento.access.key_store import KeyStore
from gptoss_bento.config.api_keys import Key, digest
from gptoss_bento.http.error_boundary import ErrorBoundary
from gptoss_bento.http.errors import BrokenStreamError
from gptoss_bento.http.fields.unknown import adding
from gptoss_bento.responses.websocket import Allowed, WebSocketMode
from gptoss_bento.responses.websocket_session import Limits
from tests.unit.responses.conftest import OWNERS, Api
from tests.waiting import HANG_S, until
from tests.websockets import Connection

LASTING = Limits(idle_s=HANG_S, lifetime_s=HANG_S, memory=1_000_000)
KEYS = KeyStore([Key(name, (digest(name),)) for name in OWNERS])


def mode_of(api: Api, allowed: Allowed = Allowed(10, 5), limits: Limits = LASTING) -> WebSocketMode:  # noqa: B008
    turns = ErrorBoundary(Authentication(api.app, KEYS), HANG_S)
    return WebSocketMode(turns, Admission(), allowed, limits)


def behind_keys(mode: WebSocketMode) -> ASGIApp:
    return Authentication(mode, KEYS)


def connected(api: Api, key: str = "alice", **made: Any) -> Connection:
    return Connection(behind_keys(mode_of(api, **made)), key)


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def texts(body: dict[str, Any]) -> list[str]:
    return [item["content"][0]["text"] for item in body["input"]]


async def test_websocket_turn_has_the_events_of_http(api: Api) -> None:
    streamed = await api.client.post("/v1/responses", json={"input": "hello", "stream": True})
    async with connected(api) as connection:
        events = await connection.turn()

    over_http = [line.removeprefix("event: ") for line in streamed.text.splitlines() if line.startswith("event: ")]
    assert [event["type"] for event in events] == over_http
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        TypeAdapter(ResponsesServerEvent).validate_python(event, strict=True)
    assert api.vllm.bodies[1].keys() == api.vllm.bodies[0].keys()


async def test_websocket_first_event_names_the_fields_without_effect(api: Api) -> None:
    async def turns(scope: Scope, receive: Receive, send: Send) -> None:
        await api.app(scope, receive, adding({"x-ignored-fields": "truncaton"}, send))

    async with Connection(WebSocketMode(turns, Admission(), Allowed(10, 5), LASTING)) as connection:
        first, *others = await connection.turn(tools=[{"type": "web_search"}])

    TypeAdapter(ResponsesServerEvent).validate_python(first, strict=True)
    assert (first["type"], first["headers"]) == ("response.created", {"x-ignored-fields": "tools[0], truncaton"})
    assert not any("headers" in event for event in others)


async def test_websocket_error_names_the_fields_without_effect() -> None:
    refusal = Response("{}", HTTPStatus.BAD_REQUEST, {"x-ignored-fields": "truncaton"})
    async with Connection(WebSocketMode(refusal, Admission(), Allowed(10, 5), LASTING)) as connection:
        (error,) = await connection.turn()

    assert error["error"]["headers"] == {"x-ignored-fields": "truncaton"}


async def test_websocket_response_is_stored(api: Api) -> None:
    async with connected(api) as connection:
        final = (await connection.turn(metadata={"a": "b"}))[-1]["response"]

    assert (await api.client.get(f"/v1/responses/{final['id']}")).json() == final
    assert (await api.of("bob").get(f"/v1/responses/{final['id']}")).status_code == 404


async def test_websocket_continues_a_response_that_is_not_stored(api: Api) -> None:
    previous = None
    async with connected(api) as connection:
        for word in ("first", "second", "third"):
            final = (await connection.turn(input=word, store=False, previous_response_id=previous))[-1]["response"]
            previous = final["id"]

    assert texts(api.vllm.bodies[2]) == ["first", "one two", "second", "one two", "third"]
    assert (final["store"], final["status"]) == (False, "completed")
    assert (await api.client.get(f"/v1/responses/{previous}")).status_code == 404


@pytest.mark.parametrize("store", [True, False])
async def test_websocket_response_without_output_is_continued(api: Api, store: bool) -> None:
    async with connected(api) as connection:
        events = await connection.turn(input="first", store=store, generate=False)
        prepared = events[-1]["response"]
        await connection.turn(input="second", store=store, previous_response_id=prepared["id"])

    assert kinds(events) == ["created", "in_progress", "completed"]
    for event in events:
        TypeAdapter(ResponsesServerEvent).validate_python(event, strict=True)
    assert (prepared["output"], prepared["usage"]["total_tokens"]) == ([], 0)
    assert [texts(body) for body in api.vllm.bodies] == [["first", "second"]]


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize(
    ("given", "param"), [(5, "input"), ({}, "input"), ([1], "input[0]"), ([{"type": "future"}], "input")]
)
async def test_websocket_response_without_output_has_items_that_the_engine_reads(
    api: Api, store: bool, given: Any, param: str
) -> None:
    api.vllm.unread = "future"
    conversation_id = (await api.client.post("/v1/conversations", json={})).json()["id"]
    turn: dict[str, Any] = {"store": store, **({"conversation": conversation_id} if store else {})}
    async with connected(api) as connection:
        refused = await connection.turn(input=given, generate=False, **turn)
        items = await connection.turn(input=[{"role": "user", "content": "first"}], generate=False, **turn)
        previous = {} if store else {"previous_response_id": items[-1]["response"]["id"]}
        after = await connection.turn(input="second", **turn, **previous)

    assert (refused[-1]["type"], refused[-1]["error"]["param"]) == ("error", param)
    assert (kinds(items)[-1], kinds(after)[-1]) == ("completed", "completed")
    assert texts(api.vllm.bodies[-1]) == ["first", "second"]


async def test_websocket_response_without_output_may_have_no_items(api: Api) -> None:
    empty: list[dict[str, Any]] = [{"input": []}, {"input": None}]
    async with connected(api) as connection:
        events = [await connection.turn(**fields, generate=False) for fields in empty]

    assert [kinds(each)[-1] for each in events] == ["completed", "completed"]
    assert api.vllm.bodies == []


async def test_websocket_remembers_the_newest_response_alone(api: Api) -> None:
    async with connected(api) as connection:
        first = (await connection.turn(store=False))[-1]["response"]["id"]
        await connection.turn(store=False)
        missed = await connection.turn(store=False, previous_response_id=first)

    error = missed[0]["error"]
    assert (missed[0]["type"], missed[0]["status"]) == ("error", 400)
    assert (error["code"], error["param"]) == ("previous_response_not_found", "previous_response_id")
    assert len(api.vllm.bodies) == 2


async def test_websocket_memory_belongs_to_its_connection(api: Api) -> None:
    app = behind_keys(mode_of(api))
    async with Connection(app) as one, Connection(app) as other:
        first = (await one.turn(store=False))[-1]["response"]["id"]
        missed = await other.turn(store=False, previous_response_id=first)

    assert missed[0]["error"]["code"] == "previous_response_not_found"


async def test_websocket_failed_continuation_is_forgotten(api: Api) -> None:
    async with connected(api) as connection:
        first = (await connection.turn(store=False))[-1]["response"]["id"]
        await connection.say({"type": "response.create", "store": False, "previous_response_id": first})
        failed = await connection.rest()
        again = await connection.turn(store=False, previous_response_id=first)

    assert failed[-1]["type"] == "error"
    assert again[0]["error"]["code"] == "previous_response_not_found"


async def test_websocket_broken_turn_fails_and_the_next_goes_on(api: Api) -> None:
    async with connected(api) as connection:
        first = (await connection.turn(store=False))[-1]["response"]["id"]
        api.vllm.breaks = BrokenStreamError(HTTPStatus.SERVICE_UNAVAILABLE, "The engine ended. Try again.")
        failed = await connection.turn(store=False, previous_response_id=first)
        api.vllm.breaks = None
        again = await connection.turn(store=False, previous_response_id=first)
        fresh = await connection.turn(store=False)

    assert kinds(failed)[-1] == "failed"
    assert failed[-1]["response"]["error"]["message"] == "The engine ended. Try again."
    assert again[0]["error"]["code"] == "previous_response_not_found"
    assert kinds(fresh)[0] == "created"


async def test_websocket_continues_what_http_has_stored(api: Api) -> None:
    stored = (await api.client.post("/v1/responses", json={"input": "stored"})).json()["id"]
    async with connected(api) as connection:
        await connection.turn(store=False, input="next", previous_response_id=stored)
    async with connected(api, "bob") as connection:
        missed = await connection.turn(previous_response_id=stored)

    assert texts(api.vllm.bodies[1]) == ["stored", "one two", "next"]
    assert missed[0]["error"]["code"] == "previous_response_not_found"


async def test_websocket_stored_response_has_the_remembered_items_too(api: Api) -> None:
    async with connected(api) as connection:
        first = (await connection.turn(store=False, input="first"))[-1]["response"]["id"]
        second = (await connection.turn(input="second", previous_response_id=first))[-1]["response"]

    answer = await api.client.post("/v1/responses", json={"input": "third", "previous_response_id": second["id"]})
    assert answer.status_code == 200
    assert texts(api.vllm.bodies[2]) == ["first", "one two", "second", "one two", "third"]
    assert second["previous_response_id"] == first


async def test_websocket_forgets_a_conversation_that_is_too_long(api: Api) -> None:
    async with connected(api, limits=Limits(HANG_S, HANG_S, memory=100)) as connection:
        first = (await connection.turn(store=False))[-1]["response"]["id"]
        missed = await connection.turn(store=False, previous_response_id=first)

    assert missed[0]["error"]["code"] == "previous_response_not_found"


async def test_websocket_has_one_response_at_a_time(api: Api) -> None:
    api.vllm.held.clear()
    async with connected(api) as connection:
        await connection.say({"type": "response.create", "input": "first"})
        await until(lambda: api.vllm.running == 1)
        await connection.say({"type": "response.create", "input": "second"})
        before = await connection.rest()
        api.vllm.held.set()
        events = await connection.rest()

    assert (before[-1]["status"], before[-1]["error"]["code"]) == (409, "response_in_progress")
    assert kinds(events)[-1] == "completed"
    assert len(api.vllm.bodies) == 1


@pytest.mark.parametrize("status", [HTTPStatus.OK, HTTPStatus.BAD_REQUEST])
async def test_websocket_turn_may_follow_the_last_event_immediately(status: HTTPStatus) -> None:
    """Though the turn before is not over yet: what comes after its last event takes a moment."""
    goes_on, turns = asyncio.Event(), 0

    async def slow_to_end(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal turns
        turns += 1
        response = Response(b'event: response.completed\ndata: {"type":"response.completed"}\n\n', status)
        await response(scope, receive, send)
        await goes_on.wait()

    mode = WebSocketMode(slow_to_end, Admission(), Allowed(10, 5), LASTING)
    async with Connection(mode) as connection:
        await connection.turn()
        await connection.say({"type": "response.create", "input": "next"})
        await asyncio.sleep(0.05)
        goes_on.set()
        events = await connection.rest()

    assert (turns, len(events)) == (2, 1)
    assert events[0].get("error", {}).get("code") != "response_in_progress"


async def test_websocket_answer_that_breaks_off_ends_with_an_error() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(b'event: response.created\ndata: {"type":"response.created"}\n\n')(scope, receive, send)

    async def raising(scope: Scope, receive: Receive, send: Send) -> None:
        await broken(scope, receive, send)
        raise ConnectionResetError

    for turns, words in ((broken, "The answer broke off"), (raising, "The server made a mistake")):
        async with Connection(WebSocketMode(turns, Admission(), Allowed(10, 5), LASTING)) as connection:
            events = await connection.turn()
        assert (events[-1]["type"], events[-1]["error"]["code"]) == ("error", "server_error")
        assert events[-1]["error"]["message"].startswith(words)


async def test_websocket_disconnect_aborts_the_generation(api: Api) -> None:
    api.vllm.held.clear()
    async with connected(api) as connection:
        await connection.say({"type": "response.create", "input": "first"})
        created = await connection.heard()
        await until(lambda: api.vllm.running == 1)

    assert (api.vllm.running, api.vllm.aborted) == (0, 1)
    found = await api.client.get(f"/v1/responses/{created['response']['id']}")
    assert found.json()["status"] == "cancelled"


async def test_websocket_error_has_the_code_of_http(api: Api) -> None:
    conversation = (await api.client.post("/v1/conversations", json={})).json()["id"]
    api.vllm.held.clear()
    app = behind_keys(mode_of(api))
    async with Connection(app) as one, Connection(app) as other:
        await one.say({"type": "response.create", "input": "first", "conversation": conversation})
        await until(lambda: api.vllm.running == 1)
        locked = await other.turn(conversation=conversation)
        api.vllm.held.set()
        events = await one.rest()

    assert (locked[0]["status"], locked[0]["error"]["code"]) == (409, "conversation_locked")
    assert kinds(events)[-1] == "completed"


@pytest.mark.parametrize(
    ("message", "param", "words"),
    [
        ("{", None, "not JSON"),
        ([1], None, "JSON object"),
        ({"input": "hello"}, "type", '"response.create", got null'),
        ({"type": "session.update"}, "type", '"session.update"'),
        ({"type": "response.create", "input": "a", "background": True}, "background", "use POST /v1/responses"),
        ({"type": "response.create", "input": "a", "stream": False}, "stream", "events are how"),
        ({"type": "response.create", "input": "a", "generate": "no"}, "generate", "true or false"),
        ({"type": "response.create", "input": "a", "stream_id": "1"}, "stream_id", "a connection for each"),
        ({"type": "response.create", "input": "a", "store": "yes"}, "store", "true or false"),
        ({"type": "response.create"}, "input", "input"),
    ],
)
async def test_websocket_message_is_refused_by_an_event(api: Api, message: Any, param: str | None, words: str) -> None:
    async with connected(api) as connection:
        await connection.say(message)
        event = await connection.heard()
        goes_on = await connection.turn()

    assert (event["type"], event["status"], event["error"]["param"]) == ("error", 400, param)
    assert (event["error"]["type"], event["error"]["code"]) == ("invalid_request_error", "invalid_request_error")
    assert words in event["error"]["message"]
    TypeAdapter(ResponsesServerEvent).validate_python(event, strict=True)
    assert kinds(goes_on)[-1] == "completed"


async def test_websocket_binary_message_closes_the_connection(api: Api) -> None:
    async with connected(api) as connection:
        await connection.say(b"\x00")

        assert (await connection.heard())["close"] == 1003


async def test_websocket_shutdown_closes_an_idle_connection(api: Api) -> None:
    mode = mode_of(api)
    async with Connection(behind_keys(mode)) as connection:
        mode.stop()

        assert (await connection.heard())["close"] == 1001


async def test_websocket_shutdown_waits_for_the_response(api: Api) -> None:
    mode = mode_of(api)
    api.vllm.held.clear()
    async with Connection(behind_keys(mode)) as connection:
        await connection.say({"type": "response.create", "input": "first"})
        await until(lambda: api.vllm.running == 1)
        mode.stop()
        api.vllm.held.set()

        assert kinds(await connection.rest())[-1] == "completed"
        assert (await connection.heard())["close"] == 1001


async def test_websocket_without_a_turn_is_closed(api: Api) -> None:
    async with connected(api, limits=Limits(0.05, HANG_S, 1000)) as connection:
        closed = await connection.heard()

    assert closed == {"close": 1000, "reason": "No turn within 0.05 s."}


async def test_websocket_with_a_running_response_is_not_idle(api: Api) -> None:
    api.vllm.pause = lambda: asyncio.sleep(0.1)
    async with connected(api, limits=Limits(0.05, HANG_S, 1000)) as connection:
        assert kinds(await connection.turn())[-1] == "completed"


async def test_websocket_lifetime_ends_with_an_error(api: Api) -> None:
    async with connected(api, limits=Limits(HANG_S, 0.05, 1000)) as connection:
        error = await connection.heard()
        closed = await connection.heard()

    assert error["error"]["code"] == "websocket_connection_limit_reached"
    assert closed["close"] == 1000


async def test_websocket_connections_are_limited_by_key_and_in_all(api: Api) -> None:
    app = behind_keys(mode_of(api, allowed=Allowed(most=3, most_of_a_key=2)))
    async with Connection(app) as first, Connection(app) as second:
        async with Connection(app) as third:
            refused = third.status, (await third.body())["error"]["message"]
        async with Connection(app, "bob") as others, Connection(app, "bob") as too_many:
            both = others.status, too_many.status, (await too_many.body())["error"]["message"]
    async with Connection(app) as later:
        assert later.status == 101

    assert (first.status, second.status) == (101, 101)
    assert refused == (429, "This key may have 2 WebSocket connections. Try again later.")
    assert both == (101, 429, "This server may have 3 WebSocket connections. Try again later.")


async def test_websocket_needs_a_key(api: Api) -> None:
    async with connected(api, "mallory") as connection:
        assert connection.status == 401
        assert "A valid key is needed" in (await connection.body())["error"]["message"]


async def test_websocket_turn_of_a_revoked_key_is_refused(api: Api) -> None:
    keys = KeyStore([Key("alice", (digest("alice"),))])
    turns = ErrorBoundary(Authentication(api.app, KeyStore([Key("bob", (digest("bob"),))])), HANG_S)
    mode = WebSocketMode(turns, Admission(), Allowed(10, 5), LASTING)
    async with Connection(Authentication(mode, keys)) as connection:
        event = (await connection.turn())[0]

    assert (event["status"], event["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://evil.example", 403),
        ("http://test", 101),
        ("https://page.example", 101),
        ("null", 403),
        ("http://[", 403),
    ],
)
async def test_websocket_of_a_browsers_page_needs_its_origin_allowed(api: Api, origin: str, status: int) -> None:
    app = behind_keys(mode_of(api, allowed=Allowed(10, 5, origins=["https://page.example"])))
    async with Connection(app, headers={"origin": origin}) as connection:
        assert connection.status == status


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/openai/v1/responses", 101),
        ("/v2/any/openai/v1/responses", 101),
        ("/v1/realtime", 404),
        ("/v1/responses/resp_1", 404),
        ("/", 404),
    ],
)
async def test_websocket_paths(api: Api, path: str, status: int) -> None:
    async with Connection(behind_keys(mode_of(api)), path=path) as connection:
        assert connection.status == status
