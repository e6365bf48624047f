"""Stored responses across workers, restarts and kills. The engine is a fake one."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import holds
from tests.server import NO_TLS, ServedProcess, all_processes_end
from tests.waiting import HANG_S, wait_for

pytestmark = pytest.mark.slow

URL = "/v1/responses"
KEYS = {"API_KEYS": "{alice: {key: key-a}, bob: {key: key-b}}"}
STREAM = {"input": "x", "background": True, "stream": True}


def call(served: ServedProcess, path: str, body: Any = None, key: str = "key-a", method: str = "") -> httpx.Response:
    """By a new connection each time, so by any worker."""
    headers = {"Authorization": f"Bearer {key}"}
    method = method or ("GET" if body is None else "POST")
    return httpx.request(method, served.url + path, json=body, headers=headers, verify=NO_TLS, timeout=HANG_S)


def wait_for_status(served: ServedProcess, response_id: str, status: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def has_it() -> bool:
        found.clear()
        found.update(call(served, f"{URL}/{response_id}").json())
        return bool(found.get("status") == status)

    wait_for(has_it, lambda: f"{found} is not {status}:\n{served.output()[-3000:]}")
    return found


def follow(served: ServedProcess, path: str, body: Any = None) -> tuple[threading.Thread, list[dict[str, Any]]]:
    """Reads a stream in a thread; it ends early where the server is killed."""
    events: list[dict[str, Any]] = []

    def read() -> None:
        method, headers = "GET" if body is None else "POST", {"Authorization": "Bearer key-a"}
        asked = httpx.stream(method, served.url + path, json=body, headers=headers, verify=NO_TLS, timeout=HANG_S)
        with suppress(httpx.TransportError), asked as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    events.append(json.loads(line.removeprefix("data: ")))  # noqa: PERF401  # a test sees each as it comes

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread, events


def started(served: ServedProcess, **fields: Any) -> str:
    made = call(served, URL, {"input": "x", "background": True, **fields})
    assert made.status_code == 200, made.text
    return str(made.json()["id"])


def test_responses_are_found_by_every_worker_and_after_a_restart(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    two = {**KEYS, "API_WORKERS": "2", "TMPDIR": str(tmp_path / "t")}
    with holds.serve_without_vllm(tmp_path, two) as served:
        served.wait_until_ready()
        made = [call(served, URL, {"input": f"turn {number}"}).json() for number in range(6)]
        for one in made:
            for _ in range(4):
                assert call(served, f"{URL}/{one['id']}").json() == one
                assert call(served, f"{URL}/{one['id']}", key="key-b").status_code == 404
        chain = made[0]["id"]
        for _ in range(4):
            chain = call(served, URL, {"input": "on", "previous_response_id": chain}).json()["id"]

        holds.held_by(tmp_path, holds.ANSWERS)
        cancelled = [started(served) for _ in range(4)]
        posted, events = follow(served, URL, {**STREAM, "request_id": "followed"})
        wait_for_status(served, "followed", "in_progress")
        listeners = [follow(served, f"{URL}/followed?stream=true&starting_after={number}") for number in range(4)]
        for response_id in cancelled:
            assert call(served, f"{URL}/{response_id}/cancel", {}).json()["status"] == "cancelled"
        holds.release(tmp_path, holds.ANSWERS)
        for thread, _ in [(posted, events), *listeners]:
            thread.join(HANG_S)
        assert events[-1]["type"] == "response.completed"
        assert [received for _, received in listeners] == [events[number + 1 :] for number in range(4)]
        with all_processes_end(served):
            served.terminate()

    with holds.serve_without_vllm(tmp_path, KEYS) as served:
        served.wait_until_ready()
        assert call(served, f"{URL}/{made[0]['id']}").json() == made[0]
        assert [item["content"][0]["text"] for item in call(served, f"{URL}/{chain}/input_items").json()["data"]] == [
            "on"
        ]
        thread, replayed = follow(served, f"{URL}/followed?stream=true")
        thread.join(HANG_S)
        assert replayed == events
        assert wait_for_status(served, cancelled[0], "cancelled")["output"] == []


def test_response_whose_worker_was_killed_has_an_honest_end(tmp_path: Path) -> None:
    """What a client had an event of fails, as does what a client waited for; the others run again, once."""
    three_slots = {**KEYS, "MAX_OPENAI_REQUESTS": "6"}
    with holds.serve_without_vllm(tmp_path, three_slots, [holds.ANSWERS]) as served:
        served.wait_until_ready()
        _, read = follow(served, URL, {**STREAM, "request_id": "read"})
        follow(served, URL, {"input": "x", "request_id": "waited for"})
        wait_for(lambda: read)
        again = started(served, request_id="again")
        resumable = started(served, request_id="third", metadata={"a": "b"})
        for response_id in ("read", "waited for", again):
            wait_for_status(served, response_id, "in_progress")
        queued = [started(served, request_id=f"queued {number}") for number in range(2)]
        for response_id in queued:
            assert wait_for_status(served, response_id, "queued")["output"] == []
        with all_processes_end(served):
            served.worker().kill()

    with holds.serve_without_vllm(tmp_path, KEYS) as served:
        holds.release(tmp_path, holds.ANSWERS)
        served.wait_until_ready()
        for response_id in ("read", "waited for"):
            found = wait_for_status(served, response_id, "failed")
            assert "ended before it did" in found["error"]["message"]
        for response_id in (again, resumable, *queued):
            found = wait_for_status(served, response_id, "completed")
            assert found["output"][0]["content"][0]["text"] == "one two"
        assert wait_for_status(served, resumable, "completed")["metadata"] == {"a": "b"}
        thread, events = follow(served, f"{URL}/read?stream=true")
        thread.join(HANG_S)
        assert events[-1]["type"] == "response.failed"
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert events[: len(read)] == read


def test_response_that_a_stop_interrupts_is_generated_by_the_next_start(tmp_path: Path) -> None:
    without_a_drain = {**KEYS, "DRAIN_TIMEOUT": "0", "MAX_OPENAI_REQUESTS": "4"}
    with holds.serve_without_vllm(tmp_path, without_a_drain, [holds.ANSWERS]) as served:
        served.wait_until_ready()
        _, read = follow(served, URL, {**STREAM, "request_id": "read"})
        wait_for(lambda: read)
        given_back = started(served)
        wait_for_status(served, given_back, "in_progress")
        waiting, nothing = follow(served, URL, {**STREAM, "request_id": "queued"})
        wait_for_status(served, "queued", "queued")
        with all_processes_end(served):
            served.terminate()
        served.wait_for_output("drained after")
        waiting.join(HANG_S)
        assert nothing == []

    with holds.serve_without_vllm(tmp_path, KEYS) as served:
        holds.release(tmp_path, holds.ANSWERS)
        served.wait_until_ready()
        assert "stopped" in wait_for_status(served, "read", "failed")["error"]["message"]
        for response_id in (given_back, "queued"):
            found = wait_for_status(served, response_id, "completed")
            assert found["output"][0]["content"][0]["text"] == "one two"


def test_request_that_comes_again_after_a_kill_makes_nothing_else(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"input": "x", "background": True}

    def ask(served: ServedProcess, body: Any = asked) -> httpx.Response:
        headers = {"Authorization": "Bearer key-a", "Idempotency-Key": "mine"}
        return httpx.post(served.url + URL, json=body, headers=headers, verify=NO_TLS, timeout=HANG_S)

    with holds.serve_without_vllm(tmp_path, KEYS, [holds.ANSWERS]) as served:
        served.wait_until_ready()
        made = ask(served).json()
        wait_for_status(served, made["id"], "in_progress")
        with all_processes_end(served):
            served.worker().kill()

    with holds.serve_without_vllm(tmp_path, KEYS) as served:
        holds.release(tmp_path, holds.ANSWERS)
        served.wait_until_ready()
        assert ask(served).json()["id"] == made["id"]
        done = wait_for_status(served, made["id"], "completed")
        assert ask(served).json() == done
        assert ask(served, {**asked, "input": "y"}).status_code == 422
