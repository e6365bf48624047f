"""WebSocket mode over real sockets: OpenAI's SDK, keys, limits, several workers, and a shutdown. The engine is fake."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests import holds
from tests.integration.test_response_survival import call
from tests.server import ServedProcess, all_processes_end
from tests.waiting import HANG_S

pytestmark = pytest.mark.slow

KEYS = {"API_KEYS": "{alice: {key: key-a}, bob: {key: key-b, requests_per_minute: 2}}"}
ENDS = ("response.completed", "response.incomplete", "response.failed", "error")


@contextmanager
def connected(served: ServedProcess, key: str = "key-a", prefix: str = "") -> Iterator[ClientConnection]:
    url = f"ws://127.0.0.1:{served.port}{prefix}/v1/responses"
    headers = {"Authorization": f"Bearer {key}"}
    with connect(url, additional_headers=headers, open_timeout=HANG_S, close_timeout=HANG_S) as connection:
        yield connection


def heard(connection: ClientConnection) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(connection.recv(HANG_S))
    return event


def turn(connection: ClientConnection, **fields: Any) -> dict[str, Any]:
    """The last event of a response."""
    connection.send(json.dumps({"type": "response.create", "input": "hello", **fields}))
    while (event := heard(connection))["type"] not in ENDS:
        pass
    return event


def closed(connection: ClientConnection) -> int:
    """The code that the server closes the connection with."""
    with pytest.raises(ConnectionClosed) as caught:
        connection.recv(HANG_S)
    assert caught.value.rcvd
    return caught.value.rcvd.code


@pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager:DeprecationWarning")  # of the SDK
def test_websocket_mode_of_openais_sdk_keys_and_limits(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    few = {"API_WORKERS": "2", "TMPDIR": str(tmp_path / "t"), "RESPONSES_WEBSOCKETS_PER_KEY": "2"}
    with holds.serve_without_vllm(tmp_path, {**KEYS, **few, "MAX_OPENAI_BODY_BYTES": "10000"}) as served:
        served.wait_until_ready()
        _sdk_takes_turns(served)
        _handshakes_are_refused(served)
        _rate_is_that_of_http(served)
        with connected(served, prefix="/v2/any/openai") as connection:
            assert turn(connection, input="x" * 9000)["type"] == "response.completed"
        with connected(served, prefix="/openai") as connection:
            connection.send("x" * 20_000)
            assert closed(connection) == 1009
        with all_processes_end(served):
            served.terminate()


def _sdk_takes_turns(served: ServedProcess) -> None:
    client = OpenAI(base_url=f"{served.url}/v1", api_key="key-a", timeout=HANG_S)
    with client.responses.connect() as connection:
        previous = None
        for _ in range(3):
            connection.response.create(input="hello", model="openai/gpt-oss-20b", previous_response_id=previous)
            last = next(event for event in connection if event.type in ENDS)
            assert last.type == "response.completed", last
            assert last.response.output_text == "one two"
            assert last.response.previous_response_id == previous
            previous = last.response.id
        connection.response.create(input="hello", previous_response_id="resp_unknown")
        error: Any = connection.recv()
    assert (error.type, error.error.code) == ("error", "previous_response_not_found")


def _handshakes_are_refused(served: ServedProcess) -> None:
    with pytest.raises(InvalidStatus) as unauthorized, connected(served, "key-x"):
        pass
    with connected(served), connected(served), pytest.raises(InvalidStatus) as too_many, connected(served):
        pass
    found = [caught.value.response for caught in (unauthorized, too_many)]
    assert [answer.status_code for answer in found] == [401, 429]
    assert found[1].headers["Retry-After"]
    assert json.loads(found[1].body)["error"]["message"].startswith("This key may have 2 WebSocket connections.")


def _rate_is_that_of_http(served: ServedProcess) -> None:
    assert call(served, "/v1/responses", {"input": "x"}, key="key-b").status_code == 200
    with connected(served, "key-b") as connection:
        assert turn(connection)["type"] == "response.completed"
        error = turn(connection)
    assert (error["status"], error["error"]["code"]) == (429, "rate_limit_exceeded")
    assert error["error"]["headers"]["x-ratelimit-limit-requests"] == "2"
    assert call(served, "/v1/responses", {"input": "x"}, key="key-b").status_code == 429


def test_websocket_shutdown_lets_the_response_end(tmp_path: Path) -> None:
    with holds.serve_without_vllm(tmp_path, KEYS, [holds.ANSWERS]) as served:
        served.wait_until_ready()
        with connected(served) as idle, connected(served) as busy, all_processes_end(served):
            busy.send(json.dumps({"type": "response.create", "input": "hello", "store": False}))
            while heard(busy)["type"] != "response.output_text.delta":
                pass
            served.terminate()
            assert closed(idle) == 1001
            holds.release(tmp_path, holds.ANSWERS)
            while (event := heard(busy))["type"] not in ENDS:
                pass
            assert event["type"] == "response.completed"
            assert closed(busy) == 1001
