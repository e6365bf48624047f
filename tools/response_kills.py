"""Kills a service with responses under way, again and again: `python -m tools.response_kills --rounds 200`.

Too long for the suite. vLLM is left out (tests/engineless_service.py), so a round takes seconds. In each round a random
worker is killed, or all processes are, at a random moment under responses in the background, their streams, and streams
whose clients wait. The next round starts on the same store. What must hold is printed and decides the exit code: each
response has one end, which says the truth and does not change; what a client has read of a stream is in the stream; a
request that is sent again with its Idempotency-Key makes no second response.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import psutil

from tests import holds
from tests.postgres import binaries, postgres_server
from tests.server import EXIT_LIMIT_S, NO_TLS, ServedProcess, serve

_ENGINELESS = "tests.engineless_service:GptOss"
_URL = "/v1/responses"
_WORDS = 20
_TEXT = "".join(f"{number} " for number in range(_WORDS))
_LONGEST_LOAD_S = 2.0
_CLIENT_LIMIT_S = 15.0
_END_LIMIT_S = 120.0
_ENDED = ("completed", "incomplete", "failed", "cancelled")
_READ, _TWICE, _WAITED = "had been streamed", "It was the second one", "ended before it did."
_STOPPED = "The server stopped before the answer was complete."  # of a worker that ended because another had died


@dataclass
class Seen:
    """What clients know of one response.

    Attributes:
        body: of its request; it is sent again with the same Idempotency-Key.
        has_id: whether a client was ever given its id.
        events: those that clients have read, by sequence number.
        end: its object when it was first seen at its end.
    """

    body: Mapping[str, Any]
    has_id: bool = False
    events: dict[int, dict[str, Any]] = field(default_factory=dict)
    end: dict[str, Any] | None = None

    @property
    def in_background(self) -> bool:
        return bool(self.body.get("background"))


@dataclass
class Tally:
    """What was seen in all rounds, by the id of each response."""

    responses: dict[str, Seen] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ResponseKills:
    """The rounds.

    Args:
        folder: of the logs, and of the store if that is SQLite's.
        variables: of the service.
        clients: how many send requests concurrently.
        all_share: the share of rounds in which all processes are killed.
    """

    folder: Path
    variables: Mapping[str, str]
    clients: int
    all_share: float
    tally: Tally = field(default_factory=Tally)

    def round(self) -> None:
        """One service, one kill."""
        with self._served() as served:
            over = Event()
            with ThreadPoolExecutor(self.clients) as clients:
                running = [clients.submit(self._ask, served.url, over) for _ in range(self.clients)]
                time.sleep(random.uniform(0.1, _LONGEST_LOAD_S))  # noqa: S311  # any moment will do
                self._kill(served)
                over.set()
                for each in running:
                    each.result(_CLIENT_LIMIT_S + _END_LIMIT_S)

    def finish(self) -> None:
        """A service that is not killed brings each response to its end."""
        with self._served() as served, _client(served.url) as client:
            for response_id, seen in self.tally.responses.items():
                self._settle(client, response_id, seen)
        self._count_generations()

    @contextmanager
    def _served(self) -> Iterator[ServedProcess]:
        with serve(self.folder, self.variables, service=_ENGINELESS) as served:
            served.wait_until_ready()
            yield served

    def _kill(self, served: ServedProcess) -> None:
        kills_all = random.random() < self.all_share  # noqa: S311
        killed = served.tree() if kills_all else [random.choice(served.workers())]  # noqa: S311
        self.tally.counts["killed all" if kills_all else "killed a worker"] += 1
        for process in killed:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        served.wait_until_ended(EXIT_LIMIT_S)

    # the clients, each until the service is gone

    def _ask(self, url: str, over: Event) -> None:
        with _client(url) as client, suppress(httpx.TransportError):
            while not over.is_set():
                random.choice((self._start, self._start, self._stream, self._wait, self._look, self._repeat))(client)  # noqa: S311

    def _new(self, **fields: Any) -> tuple[str, Seen]:
        response_id = f"r-{uuid.uuid4().hex}"
        seen = Seen({"input": "x", "request_id": response_id, **fields})
        self.tally.responses[response_id] = seen
        return response_id, seen

    def _start(self, client: httpx.Client) -> None:
        response_id, seen = self._new(background=True)
        self._posted(client, response_id, seen)

    def _posted(self, client: httpx.Client, response_id: str, seen: Seen) -> None:
        answer = client.post(_URL, json=seen.body, headers={"Idempotency-Key": response_id})
        if answer.status_code == 200:
            seen.has_id = True
            self._note_end(response_id, seen, answer.json())
        else:
            self._note("background", answer)

    def _stream(self, client: httpx.Client) -> None:
        _, seen = self._new(background=True, stream=True)
        self._read(client, seen, "POST", _URL, seen.body)

    def _wait(self, client: httpx.Client) -> None:
        _, seen = self._new(stream=True)
        self._read(client, seen, "POST", _URL, seen.body)

    def _look(self, client: httpx.Client) -> None:
        """Retrieves a response, or follows its stream again from where clients had been."""
        response_id, seen = self._any()
        if seen.body.get("stream") and seen.in_background and seen.has_id:
            after = max(seen.events, default=-1)
            query = f"?stream=true&starting_after={after}" if after >= 0 else "?stream=true"
            self._read(client, seen, "GET", f"{_URL}/{response_id}{query}")
        elif seen.has_id:
            self._note_end(response_id, seen, client.get(f"{_URL}/{response_id}").json())

    def _repeat(self, client: httpx.Client) -> None:
        """Sends a request again, of which the client may not know whether it has arrived."""
        response_id, seen = self._any()
        if seen.in_background and not seen.body.get("stream"):
            self.tally.counts["sent again"] += 1
            self._posted(client, response_id, seen)

    def _any(self) -> tuple[str, Seen]:
        known = list(self.tally.responses.items())
        return random.choice(known) if known else self._new(background=True)  # noqa: S311

    def _read(self, client: httpx.Client, seen: Seen, method: str, url: str, body: Any = None) -> None:
        with client.stream(method, url, json=body) as answer:
            if answer.status_code != 200:
                answer.read()
                self._note("stream", answer)
                return
            seen.has_id = True
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    self._note_event(seen, json.loads(line.removeprefix("data: ")))

    def _note_event(self, seen: Seen, event: dict[str, Any]) -> None:
        if event["type"] == "error":  # of the stream, not of the response
            return
        known = seen.events.setdefault(event["sequence_number"], event)
        if seen.in_background and known != event:
            self.tally.faults.append(f"two events have one number: {known} {event}")

    def _note(self, what: str, answer: httpx.Response) -> None:
        self.tally.counts[f"{what}: {answer.status_code}"] += 1
        honest = answer.status_code == 503 and "retry-after" in answer.headers
        if not honest and answer.status_code != 404:  # it was never accepted
            self.tally.faults.append(f"{what}: {answer.status_code} {answer.text[:200]}")

    def _note_end(self, response_id: str, seen: Seen, found: dict[str, Any]) -> None:
        if found.get("status") not in _ENDED:
            return
        seen.end = seen.end or found
        if seen.end != found:
            self.tally.faults.append(f"{response_id} has two ends: {seen.end} and {found}")

    # the end

    def _settle(self, client: httpx.Client, response_id: str, seen: Seen) -> None:
        deadline = time.monotonic() + _END_LIMIT_S
        while True:
            answer = client.get(f"{_URL}/{response_id}")
            found = answer.json()
            if answer.status_code == 404 or found["status"] in _ENDED or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        if answer.status_code == 404:
            self._note_missing(response_id, seen)
            return
        self._note_end(response_id, seen, found)
        kind = "background" if seen.in_background else "waited for"
        self.tally.counts[f"{kind}: {found['status']} {_why(found)}"] += 1
        if fault := _dishonest(seen, found):
            self.tally.faults.append(f"{response_id}: {fault}: {str(found)[:300]}")
        if seen.in_background and seen.body.get("stream"):
            self._read(client, seen, "GET", f"{_URL}/{response_id}?stream=true")
            self._check_stream(response_id, seen, found)

    def _note_missing(self, response_id: str, seen: Seen) -> None:
        self.tally.counts["never accepted"] += 1
        if seen.has_id or seen.events:
            self.tally.faults.append(f"{response_id} was accepted and is gone")

    def _check_stream(self, response_id: str, seen: Seen, found: dict[str, Any]) -> None:
        numbers = sorted(seen.events)
        if numbers != list(range(len(numbers))):
            self.tally.faults.append(f"{response_id}: the stream has the numbers {numbers}")
        elif not numbers or seen.events[numbers[-1]].get("response") != found:
            self.tally.faults.append(f"{response_id}: the stream does not end with the response")

    def _count_generations(self) -> None:
        """A kill between the last token and its commit makes a second generation; a third has no excuse."""
        ends = Counter(Path(self.variables[holds.ENDS]).read_text().split())
        for response_id, seen in self.tally.responses.items():
            if seen.in_background and ends[response_id] > 1:
                self.tally.counts["generated to its end again, as the first end was not stored"] += 1
            if ends[response_id] > (2 if seen.in_background else 1):
                self.tally.faults.append(f"{response_id} was generated {ends[response_id]} times")


def _why(found: Mapping[str, Any]) -> str:
    message = str((found.get("error") or {}).get("message", ""))
    return next((why for why in (_READ, _TWICE, _WAITED, _STOPPED) if why in message), message)


def _dishonest(seen: Seen, found: Mapping[str, Any]) -> str | None:
    """What is wrong with an end."""
    if found["status"] not in _ENDED:
        return "has no end"
    if found["status"] == "completed":
        text = "".join(part["text"] for item in found["output"] for part in item["content"])
        return None if text == _TEXT else "has another text"
    if not seen.in_background:
        return None if found["status"] == "cancelled" or found["error"] else "has no reason"
    why = _why(found)
    if found["status"] != "failed" or why not in (_READ, _TWICE, _STOPPED):
        return "has no end that a response of the background may have"
    return "had no reader" if why == _READ and not seen.body.get("stream") else None


def _client(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=_CLIENT_LIMIT_S, verify=NO_TLS)


def show(tally: Tally) -> None:
    for what, count in sorted(tally.counts.items()):
        print(f"{count:7} {what}")
    for fault in tally.faults[:40]:
        print("fault:", fault)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--clients", type=int, default=25)
    parser.add_argument("--all", type=float, default=0.4, help="share of rounds in which all processes are killed")
    parser.add_argument("--postgresql", action="store_true", help="instead of SQLite")
    words = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="response-kills-"))
    (folder / "ends").touch()
    variables = {"PROFILE": "demo", "API_WORKERS": "2", "RESPONSES_MAX": "10000000", holds.WORDS: str(_WORDS)}
    variables[holds.ENDS] = str(folder / "ends")
    data = Path(tempfile.mkdtemp(prefix="response-kills-data-"))
    with postgres_server(data, binaries()) if words.postgresql else nullcontext() as server:
        store = {"JOB_STORE_URL": server.url} if server else {}
        kills = ResponseKills(folder, {**variables, **store}, words.clients, words.all)
        for number in range(words.rounds):
            kills.round()
            known, faults = len(kills.tally.responses), len(kills.tally.faults)
            print(f"round {number}: {known} responses, {faults} faults so far", flush=True)
        kills.finish()
    show(kills.tally)
    print(f"{len(kills.tally.faults)} faults in {len(kills.tally.responses)} responses; the logs are in {folder}")
    sys.exit(bool(kills.tally.faults))


if __name__ == "__main__":
    main()
