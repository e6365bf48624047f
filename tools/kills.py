"""Kills a random worker of a service under load, again and again: `python -m tools.kills --rounds 200`.

Too long for the suite. Without `--engine` vLLM is left out (tests/engineless_service.py) and a round takes seconds.
What must hold is printed and decides the exit code: the service ends by itself, in time, with the documented exit code
and one cause; no process, socket or folder is left; no client hangs; and each accepted job comes to an end on the same
store.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from subprocess import TimeoutExpired
from threading import Event

import httpx
import psutil

from tests.server import EXIT_LIMIT_S, MODEL, NO_TLS, ServedProcess, command_line, serve

_ENGINELESS = "tests.engineless_service:GptOss"
_FAKE_MODEL = "fake-model"
_WORKER_DIED = 75  # docs/operations.md
_CLIENTS = 12
_JOBS_A_CLIENT = 10
_LONGEST_LOAD_S = 1.5
_CLIENT_LIMIT_S = 15.0
_SETTLED_EVERY = 5
_OURS = "gptoss-bento"
_MARK = "GPTOSS_BENTO_TEST_ROUND"
_STOPPED_TWICE = "The server stopped twice while the job ran."


@dataclass
class Tally:
    """What was seen in all rounds."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    seconds_to_end: list[float] = field(default_factory=list)
    pending: set[str] = field(default_factory=set)
    """Accepted jobs of which no end is known yet."""


@dataclass(frozen=True)
class Kills:
    """The rounds.

    Args:
        folder: of the job store and the logs.
        service: which one, as `bentoml serve` names it.
        model: its name for clients.
        early: the share of rounds in which the worker dies while the service starts.
    """

    folder: Path
    service: str
    model: str
    early: float
    tally: Tally = field(default_factory=Tally)

    def round(self, number: int) -> None:
        """One service, one kill."""
        before = len(self.tally.faults)
        with self._served(number) as (served, check):
            if random.random() < self.early:  # noqa: S311
                self._kill_at_start(served)
            else:
                served.wait_until_ready()
                if number % _SETTLED_EVERY == 0:
                    self._settle(served)
                self._kill_under_load(served)
            check()
        self.tally.faults[before:] = [f"round {number}: {fault}" for fault in self.tally.faults[before:]]

    def finish(self) -> None:
        """A service that is not killed ends every job, and itself as it should."""
        with self._served(-1) as (served, check):
            served.wait_until_ready()
            self._settle(served)
            served.terminate()
            self._expect_exit(served, 0)
            check()

    @contextmanager
    def _served(self, number: int) -> Iterator[tuple[ServedProcess, Check]]:
        mark = uuid.uuid4().hex
        with tempfile.TemporaryDirectory(prefix="t-", dir=self.folder) as temporary:
            check = Check(self.tally, mark, Path(temporary))
            variables = {"PROFILE": "demo", "API_WORKERS": "2", "TMPDIR": temporary, _MARK: mark}
            with serve(self.folder, variables, service=self.service) as served:
                faults = len(self.tally.faults)
                yield served, check
            if len(self.tally.faults) == faults:
                served.log.unlink()
            else:
                served.log.rename(self.folder / f"round-{number}.log")

    def _kill_at_start(self, served: ServedProcess) -> None:
        """One that has not started yet may be started again, and the service must become ready as if nothing was."""
        while not (workers := served.workers()):
            time.sleep(0.02)
        time.sleep(random.uniform(0, 6))  # noqa: S311
        self._kill(random.choice(workers))  # noqa: S311
        deadline = time.monotonic() + 60
        while served.process.poll() is None and time.monotonic() < deadline:
            readiness = served.readiness() if served.process.poll() is None else None
            if readiness is not None and readiness.json()["phase"] == "ready":
                time.sleep(1)  # or had it only not noticed?
                if served.process.poll() is None and served.readiness():
                    self.tally.counts["killed before it had started"] += 1
                    served.terminate()
                    self._expect_exit(served, 0)
                    return
            time.sleep(0.1)
        self.tally.counts["killed at the start"] += 1
        self._expect_exit(served, _WORKER_DIED)

    def _kill_under_load(self, served: ServedProcess) -> None:
        over = Event()
        with ThreadPoolExecutor(_CLIENTS) as clients:
            asks = [self._submits, self._streams, self._streams]
            running = [clients.submit(asks[i % 3], served.url, over) for i in range(_CLIENTS)]
            time.sleep(random.uniform(0.1, _LONGEST_LOAD_S))  # noqa: S311  # any moment will do
            workers = served.workers()
            which = random.randrange(len(workers))  # noqa: S311
            self.tally.counts[f"killed worker {which + 1}"] += 1
            killed = time.monotonic()
            self._kill(workers[which])
            self._expect_exit(served, _WORKER_DIED)
            self.tally.seconds_to_end.append(time.monotonic() - killed)
            over.set()
            self._expect_clients(running)
        said = [line for line in served.output().splitlines() if line.startswith("gptoss-bento: stopped")]
        if len(said) != 1 or f"API worker {which + 1} died without a word" not in said[0]:
            self.tally.faults.append(f"worker {which + 1} was killed, and it says {said}")

    def _kill(self, worker: psutil.Process) -> None:
        with suppress(psutil.NoSuchProcess):
            worker.kill()

    def _expect_exit(self, served: ServedProcess, code: int) -> None:
        try:
            found = served.wait_until_ended(EXIT_LIMIT_S)
        except TimeoutExpired:
            tree = [f"{process} {' '.join(command_line(process))[-60:]}" for process in served.tree()]
            self.tally.faults.append(f"not ended after {EXIT_LIMIT_S} s: {tree}")
            return
        if found != code:
            self.tally.faults.append(f"exit code {found}, not {code}")

    def _expect_clients(self, running: list[Future[None]]) -> None:
        for each in running:
            try:
                each.result(_CLIENT_LIMIT_S)
            except TimeoutError:
                self.tally.faults.append("a client hangs")
            except Exception as error:
                self.tally.faults.append(f"a client: {type(error).__name__}: {error}")

    # the clients, each until the service is gone

    def _submits(self, url: str, over: Event) -> None:
        job = {"input": {"prompt": "a b c", "stream": True, "sampling_params": {"max_tokens": 30}}}
        with _client(url) as client, suppress(httpx.NetworkError, httpx.RemoteProtocolError):
            for _ in range(_JOBS_A_CLIENT):
                response = client.post("/run", json=job)
                if response.status_code == 200:
                    self.tally.pending.add(response.json()["id"])
                self._note("run", response)
            while not over.is_set():
                self._note("health", client.get("/health"))
                time.sleep(0.05)

    def _streams(self, url: str, over: Event) -> None:
        body = {"model": self.model, "prompt": "Hello", "max_tokens": 400, "ignore_eos": True, "stream": True}
        with _client(url) as client:
            while not over.is_set():
                last = ""
                try:
                    with client.stream("POST", "/v1/completions", json=body) as response:
                        for line in response.iter_lines():
                            last = line.removeprefix("data: ") or last
                except httpx.ConnectError:
                    return
                except (httpx.NetworkError, httpx.RemoteProtocolError):
                    self.tally.counts["stream broken off"] += 1  # as the killed worker's must be
                    continue
                if response.status_code != 200:
                    self._note("stream", response)
                    time.sleep(0.05)
                elif last == "[DONE]":
                    self.tally.counts["stream whole"] += 1
                else:
                    self._note_last_word(last)

    def _note(self, what: str, response: httpx.Response) -> None:
        self.tally.counts[f"{what} {response.status_code}"] += 1
        honest = response.status_code == 503 and "retry-after" in response.headers
        if response.status_code != 200 and not honest:
            self.tally.faults.append(f"{what}: {response.status_code} {response.headers}")

    def _note_last_word(self, last: str) -> None:
        with suppress(ValueError, KeyError, TypeError):
            if json.loads(last)["error"]["code"] == 503:
                self.tally.counts["stream ended with an error event"] += 1
                return
        self.tally.faults.append(f"a stream ended with {last[:100]!r}")

    def _settle(self, served: ServedProcess) -> None:
        """Every job accepted so far comes to an end now: done, or given up because its worker was killed twice."""
        with _client(served.url, 100) as client:
            for job_id in sorted(self.tally.pending):
                job = client.get(f"/status-sync/{job_id}?wait=90000").json()
                end = (job.get("status"), job.get("error"))
                if end not in (("COMPLETED", None), ("FAILED", _STOPPED_TWICE)):
                    self.tally.faults.append(f"job {job_id} has no end, or no honest one: {str(job)[:200]}")
                self.tally.counts[f"job {' '.join(filter(None, end))}"] += 1
                self.tally.counts["job retried"] += bool(job.get("retries"))
        self.tally.pending.clear()


@dataclass(frozen=True)
class Check:
    """Looks for what a service has left.

    Args:
        mark: the value of a variable that all its processes inherit.
        folder: its folder for temporary files.
    """

    tally: Tally
    mark: str
    folder: Path

    def __call__(self) -> None:
        deadline = time.monotonic() + 3
        while (orphans := self._orphans()) and time.monotonic() < deadline:
            time.sleep(0.1)
        for orphan in orphans:
            with suppress(psutil.Error):
                self.tally.faults.append(f"left: process {' '.join(orphan.cmdline())[-100:]!r}")
                orphan.kill()
        for name in sorted(path.name for path in self.folder.iterdir()):
            if name.startswith(_OURS):
                self.tally.faults.append(f"left: {name}")
            else:
                self.tally.counts[f"left by BentoML, vLLM or torch: {_kind(name)}"] += 1

    def _orphans(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(_MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


def _kind(name: str) -> str:
    """A name without what differs each time."""
    if re.fullmatch(r"[0-9a-f-]{36}", name):
        return "a socket of vLLM's"
    known, mark, _ = name.rpartition("_" if name.startswith("vllm_dist") else "-")
    return f"{known}{mark}*" if mark else name


def _client(url: str, timeout_s: float = _CLIENT_LIMIT_S) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=timeout_s, verify=NO_TLS)


def show(tally: Tally) -> None:
    for what, count in sorted(tally.counts.items()):
        print(f"{count:7} {what}")
    if ends := tally.seconds_to_end:
        print(f"seconds from the kill to the end: median {median(ends):.1f}, at most {max(ends):.1f}")
    for fault in tally.faults[:40]:
        print("fault:", fault)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=300, help="after which no round begins")
    parser.add_argument("--early", type=float, default=0.15, help="share of rounds with the kill during the start")
    parser.add_argument("--engine", action="store_true", help="with vLLM: a minute a round")
    words = parser.parse_args()
    service, model = (".", MODEL) if words.engine else (_ENGINELESS, _FAKE_MODEL)
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    kills = Kills(folder, service, model, words.early)
    ends = time.monotonic() + 60 * words.minutes
    for number in range(words.rounds):
        started = time.monotonic()
        if started > ends:
            break
        kills.round(number)
        took = time.monotonic() - started
        print(f"round {number}: {took:.1f} s, {len(kills.tally.faults)} faults so far", flush=True)
    kills.finish()
    show(kills.tally)
    print(f"{len(kills.tally.faults)} faults; logs of those rounds are in {folder}")
    sys.exit(bool(kills.tally.faults))


if __name__ == "__main__":
    main()
