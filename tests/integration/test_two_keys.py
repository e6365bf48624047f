"""A key reaches nothing of another key's, and cannot tell whether it is there. The engine is a fake one.

Jobs are left out: as RunPod's, they are found by their id with any key (docs/keys.md).
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import holds
from tests.server import NO_TLS
from tests.waiting import HANG_S, wait_for

pytestmark = pytest.mark.slow

KEYS = {"API_KEYS": "{alice: {key: key-a}, bob: {key: key-b}}", "RATE_LIMIT_PER_KEY": "0"}
PRIVATE = "the garden behind the mill"
LINE = {"custom_id": "1", "method": "POST", "url": "/v1/responses", "body": {"model": "m", "input": PRIVATE}}


@dataclass(frozen=True)
class Owned:
    """Alice's ids, and one of the same kind that nothing has."""

    kind: str
    id: str
    missing: str


def client_of(url: str, key: str) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, verify=NO_TLS, timeout=HANG_S)


def made(client: httpx.Client, path: str, body: Any) -> Any:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def belongings(alice: httpx.Client) -> list[Owned]:
    """Three of each kind, with the private text in it."""
    owned: list[Owned] = []
    for _ in range(3):
        response = made(alice, "/v1/responses", {"input": PRIVATE})
        chained = made(alice, "/v1/responses", {"input": PRIVATE, "previous_response_id": response["id"]})
        items = [{"type": "message", "role": "user", "content": PRIVATE}]
        conversation = made(alice, "/v1/conversations", {"items": items, "metadata": {"of": "alice"}})
        item = alice.get(f"/v1/conversations/{conversation['id']}/items").json()["data"][0]
        upload = {"files": {"file": ("a.jsonl", json.dumps(LINE).encode())}, "data": {"purpose": "batch"}}
        file = alice.post("/v1/files", **upload).json()  # type: ignore[arg-type]
        asked = {"input_file_id": file["id"], "endpoint": "/v1/responses", "completion_window": "24h"}
        batch = made(alice, "/v1/batches", asked)
        for kind, one in {
            "response": response,
            "chained": chained,
            "conversation": conversation,
            "item": item,
            "file": file,
            "batch": batch,
        }.items():
            owned.append(Owned(kind, one["id"], missing(one["id"])))
    return owned


def missing(id_: str) -> str:
    """The same id with other characters in its random part, as somebody would guess one."""
    head, tail = id_[:-8], id_[-8:]
    return head + "".join("0123456789abcdef"[(int(it, 16) + 1) % 16] if it in "0123456789abcdef" else it for it in tail)


Attempt = Callable[[httpx.Client, str, str], httpx.Response]


def by_path(method: str, path: str, body: Any = None) -> Attempt:
    def attempt(client: httpx.Client, id_: str, item: str) -> httpx.Response:
        return client.request(method, path.format(id=id_, item=item), json=body)

    return attempt


def by_body(path: str, body: Callable[[str, str], Any]) -> Attempt:
    return lambda client, id_, item: client.post(path, json=body(id_, item))


def attempts() -> Iterator[Attempt]:
    """To read, follow, continue, change, cancel, delete and list, by path and by body."""
    for prefix in ("/v1", "/openai/v1"):
        for kind in ("responses", "conversations", "files", "batches"):
            for method in ("GET", "DELETE", "POST"):
                yield by_path(
                    method, f"{prefix}/{kind}/{{id}}", {"metadata": {"of": "bob"}} if method == "POST" else None
                )
        yield by_path("GET", f"{prefix}/responses/{{id}}?stream=true")
        yield by_path("GET", f"{prefix}/responses/{{id}}?stream=true&starting_after=0")
        yield by_path("GET", f"{prefix}/responses/{{id}}/input_items")
        yield by_path("POST", f"{prefix}/responses/{{id}}/cancel")
        yield by_path("GET", f"{prefix}/conversations/{{id}}/items")
        yield by_path("POST", f"{prefix}/conversations/{{id}}/items", {"items": [{"role": "user", "content": "x"}]})
        yield by_path("GET", f"{prefix}/conversations/{{id}}/items/{{item}}")
        yield by_path("DELETE", f"{prefix}/conversations/{{id}}/items/{{item}}")
        yield by_path("GET", f"{prefix}/files/{{id}}/content")
        yield by_path("POST", f"{prefix}/batches/{{id}}/cancel")
        yield by_path("GET", f"{prefix}/files?after={{id}}")
        yield by_path("GET", f"{prefix}/batches?after={{id}}")
        yield by_body(f"{prefix}/responses", lambda id_, _: {"input": "x", "previous_response_id": id_})
        yield by_body(f"{prefix}/responses", lambda id_, _: {"input": "x", "conversation": id_})
        yield by_body(f"{prefix}/responses", lambda id_, _: {"input": "x", "conversation": {"id": id_}, "stream": True})
        yield by_body(f"{prefix}/responses", lambda _, item: {"input": [{"type": "item_reference", "id": item}]})
        yield by_body(f"{prefix}/responses/input_tokens", lambda id_, _: {"input": "x", "previous_response_id": id_})
        yield by_body(f"{prefix}/responses/compact", lambda id_, _: {"model": "m", "previous_response_id": id_})
        yield by_body(
            f"{prefix}/batches",
            lambda id_, _: {"input_file_id": id_, "endpoint": "/v1/responses", "completion_window": "24h"},
        )


def seen(answer: httpx.Response, *ids: str) -> tuple[int, str]:
    """What tells an answer from another one, but for the id that was asked for and when it was."""
    text = answer.text
    for id_ in ids:
        text = text.replace(id_, "…")
    text = re.sub(r'"(id|request_id|error_id)":\s*"[^"]*"', "", text)
    return answer.status_code, re.sub(r"\d{9,}(\.\d+)?", "", text)


def state(alice: httpx.Client, owned: list[Owned]) -> dict[str, Any]:
    """All that Alice has, as she sees it."""
    paths = {
        "response": "/v1/responses/{}",
        "chained": "/v1/responses/{}/input_items",
        "conversation": "/v1/conversations/{}/items",
        "file": "/v1/files/{}/content",
    }
    found = {it.id: alice.get(paths[it.kind].format(it.id)) for it in owned if it.kind in paths}
    found |= {it.id: alice.get(f"/v1/batches/{it.id}") for it in owned if it.kind == "batch"}
    assert {answer.status_code for answer in found.values()} == {200}
    return {id_: answer.text for id_, answer in found.items()}


def test_key_reaches_nothing_of_another_one(tmp_path: Path) -> None:
    with holds.serve_without_vllm(tmp_path, KEYS) as served:
        served.wait_until_ready()
        with client_of(served.url, "key-a") as alice, client_of(served.url, "key-b") as bob:
            owned = belongings(alice)
            batches = [it.id for it in owned if it.kind == "batch"]
            for id_ in batches:
                wait_for(lambda: alice.get(f"/v1/batches/{id_}").json()["status"] == "completed")  # noqa: B023
            before = state(alice, owned)
            tried = [(attempt, target) for attempt in attempts() for target in owned]
            random.Random(1).shuffle(tried)  # what is cancelled and deleted in vain comes between the others
            assert len(tried) > 1000
            found = [difference(bob, attempt, target, owned) for attempt, target in tried]
            assert [it for it in found if it] == []
            assert state(alice, owned) == before
            lists = [bob.get(path).json()["data"] for path in ("/v1/files", "/v1/batches")]
            assert lists == [[], []]


def difference(bob: httpx.Client, attempt: Attempt, target: Owned, owned: list[Owned]) -> str:
    """The attempt with an id of Alice's and with one that nothing has; what tells them apart, or nothing."""
    item = next(it for it in owned if it.kind == "item")
    theirs, nothing = attempt(bob, target.id, item.id), attempt(bob, target.missing, item.missing)
    asked = f"{theirs.request.method} {theirs.request.url.path} {theirs.request.content[:200]!r}"
    if PRIVATE in theirs.text or (theirs.is_success and not is_empty(theirs)):
        return f"{asked} gave {theirs.status_code} {theirs.text[:300]}"
    if seen(theirs, target.id, item.id) != seen(nothing, target.missing, item.missing):
        return f"{asked} is not answered as a missing one is: {theirs.text[:300]} and {nothing.text[:300]}"
    return ""


def is_empty(answer: httpx.Response) -> bool:
    """A list of nothing, of one's own."""
    return bool(answer.json().get("data") == [])
