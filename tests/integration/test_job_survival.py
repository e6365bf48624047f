"""Jobs survive `kill -9` at any moment, on both databases, and a worker that takes over from a dead one loses none."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from gptoss_bento.workers.worker_group import make_shared_folder
from tests.job_server import job_server
from tests.postgres import binaries, postgres_server
from tests.waiting import HANG_S
from tools.full_disk import Disk, file_limit, small_file_system

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("KILLS", "50"))
AWAY_S = float(os.environ.get("AWAY_S", "20"))  # PostgreSQL
TEAM_KILLS = 3
JOBS_AT_ONCE = 100
CLIENTS = 10
JOB = {"input": {"prompt": "a b c", "stream": True, "sampling_params": {"max_tokens": 30}}}


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("store")
    if request.param == "sqlite":
        yield f"sqlite:///{folder / 'jobs.sqlite3'}"
        return
    with postgres_server(folder, binaries()) as server:
        yield server.url


def submit(client: httpx.Client, accepted: set[str], jobs: int) -> None:
    """Submits until the server is killed."""
    for _ in range(jobs):
        try:
            response = client.post("/run", json=JOB)
        except httpx.TransportError:
            return
        assert response.status_code == 200, response.text
        accepted.add(response.json()["id"])


def test_job_that_was_accepted_is_never_lost(store_url: str) -> None:
    accepted: set[str] = set()
    for _ in range(KILLS):
        with job_server(store_url, token_s=0.005) as (process, client), ThreadPoolExecutor(CLIENTS) as clients:
            jobs = client.get("/health").json()["jobs"]
            missing = JOBS_AT_ONCE - jobs["inQueue"] - jobs["inProgress"]
            runs = [clients.submit(submit, client, accepted, missing // CLIENTS) for _ in range(CLIENTS)]
            time.sleep(random.uniform(0, 0.4))  # any moment will do
            process.kill()
            for run in runs:
                run.result()

    with job_server(store_url, token_s=0) as (_, client):
        states = [client.get(f"/status-sync/{job_id}?wait=60000").json() for job_id in accepted]
        counts = client.get("/health").json()["jobs"]
    ends = Counter(state["status"] for state in states)
    assert set(ends) <= {"COMPLETED", "FAILED"}
    assert ends["COMPLETED"], ends
    for state in states:
        if state["status"] == "COMPLETED":
            assert sum(len(item["choices"][0]["tokens"]) for item in state["output"]) == 30
        else:
            assert "stopped twice" in state["error"]
    # The store may hold jobs whose answer was interrupted by the kill; each of all has one end.
    assert counts["completed"] + counts["failed"] >= len(accepted)
    assert counts["inQueue"] == counts["inProgress"] == 0


def test_job_of_a_killed_worker_is_taken_over_by_another(store_url: str) -> None:
    accepted: set[str] = set()
    slow_s = HANG_S  # a token of the first, so that whatever it runs is not done when it is killed
    with job_server(store_url, token_s=slow_s) as (first, client), job_server(store_url) as (_, other):
        submit(client, accepted, 60)
        first.kill()
        first.join()
        states = [other.get(f"/status-sync/{job_id}?wait=60000").json() for job_id in accepted]
    assert len(accepted) == 60
    assert {state["status"] for state in states} == {"COMPLETED"}
    assert any(state.get("retries") == 1 for state in states)


def test_worker_that_is_killed_ends_the_others_and_no_job_is_lost(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    store_url = f"sqlite:///{tmp_path_factory.mktemp('store') / 'jobs.sqlite3'}"
    accepted: set[str] = set()
    for _ in range(TEAM_KILLS):
        kill_one_of_a_group(store_url, tmp_path_factory.mktemp("t") / "group", accepted)
    with job_server(store_url) as (_, client):
        states = [client.get(f"/status-sync/{job_id}?wait=60000").json() for job_id in accepted]
    assert accepted
    for state in states:
        assert state["status"] == "COMPLETED" or "stopped twice" in state["error"]


def kill_one_of_a_group(store_url: str, folder: Path, accepted: set[str]) -> None:
    """Any worker, at any moment, under load; the others must see it and end by themselves."""
    make_shared_folder(folder, 2)
    with (
        job_server(store_url, group=(0, 2, folder)) as (one, client),
        job_server(store_url, group=(1, 2, folder)) as (other, another_client),
        ThreadPoolExecutor(8) as clients,
    ):
        for _ in range(4):
            clients.submit(submit, client, accepted, 10)
            clients.submit(submit, another_client, accepted, 10)
        time.sleep(random.uniform(0, 1))  # any moment will do
        killed, left = random.sample((one, other), 2)
        killed.kill()
        killed.join()
        left.join(HANG_S)
        assert left.exitcode == 0
    assert not folder.exists()


def test_database_outage_loses_no_job(tmp_path_factory: pytest.TempPathFactory) -> None:
    accepted: set[str] = set()
    with (
        postgres_server(tmp_path_factory.mktemp("away"), binaries()) as database,
        job_server(database.url) as (_, client),
    ):
        submit(client, accepted, 20)
        database.stop()
        job_id = next(iter(accepted))
        asked = [("POST", "/run"), ("POST", f"/cancel/{job_id}"), ("POST", "/purge-queue")]
        asked += [("GET", path) for path in ("/health", f"/status/{job_id}", f"/stream/{job_id}")]
        until = time.monotonic() + AWAY_S
        while time.monotonic() < until:
            for method, path in asked:
                is_unavailable(client.request(method, path, json=JOB if path == "/run" else None))
        database.start()
        states = [client.get(f"/status-sync/{job_id}?wait=60000").json() for job_id in accepted]
    assert len(accepted) == 20
    assert {state["status"] for state in states} == {"COMPLETED"}
    assert not any("retries" in state for state in states), "what was generated meanwhile was not thrown away"


def is_unavailable(response: httpx.Response) -> None:
    assert response.status_code == 503, response.text
    assert response.json() == {"error": "The job store cannot be used now. Try again."}
    assert int(response.headers["retry-after"]) > 0


@pytest.mark.parametrize("disk_at", [small_file_system, file_limit])
def test_disk_that_is_full_loses_no_job(
    disk_at: Callable[[Path], AbstractContextManager[Disk]], tmp_path: Path
) -> None:
    accepted: set[str] = set()
    with disk_at(tmp_path) as disk, job_server(f"sqlite:///{tmp_path / 'jobs.sqlite3'}") as (process, client):
        submit(client, accepted, 20)
        assert process.pid
        disk.fill(process.pid)
        is_unavailable(submit_until_refused(client, accepted))
        time.sleep(1.5)  # what ran has ended, and could not be written
        is_unavailable(client.post("/run", json=JOB))
        states = [client.get(f"/status/{job_id}").json()["status"] for job_id in accepted]
        assert set(states) & {"IN_PROGRESS", "IN_QUEUE"}
        disk.free(process.pid)
        ends = [client.get(f"/status-sync/{job_id}?wait=60000").json() for job_id in accepted]
    assert {state["status"] for state in ends} == {"COMPLETED"}
    assert not any("retries" in state for state in ends)


def submit_until_refused(client: httpx.Client, accepted: set[str]) -> httpx.Response:
    """SQLite finds some room within its files."""
    while (response := client.post("/run", json=JOB)).status_code == 200:
        accepted.add(response.json()["id"])
    return response


def test_store_makes_its_folder(tmp_path: Path) -> None:
    with job_server(f"sqlite:///{tmp_path / 'new' / 'jobs.sqlite3'}") as (_, client):
        assert client.get("/health").status_code == 200
