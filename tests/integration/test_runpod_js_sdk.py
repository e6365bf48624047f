"""RunPod's JavaScript SDK, unchanged but for its base URL, against the real server and the real engine."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server import NO_TLS, ServedProcess
from tests.waiting import HANG_S

pytestmark = pytest.mark.engine

PACKAGE = "runpod-sdk@1.1.2"
SCRIPT = Path(__file__).with_name("runpod_sdk.mjs")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the SDK, from npm; skips where Node.js or the package is not to be had."""
    folder = tmp_path_factory.mktemp("node")
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed, which RunPod's JavaScript SDK needs")
    command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts", PACKAGE]
    try:
        installed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not get {PACKAGE} within 60 s")
    if installed.returncode != 0:
        pytest.skip(f"npm cannot install {PACKAGE} here: {installed.stderr.strip()[-200:]}")
    return folder


@pytest.fixture(scope="module")
def given(server: ServedProcess, package: Path) -> dict[str, Any]:
    """What each call of the SDK gave; one run of Node.js for all tests."""
    command = ["node", str(SCRIPT), f"{server.url}/v2"]
    ended = subprocess.run(command, cwd=package, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout))


def test_run_sync(given: dict[str, Any]) -> None:
    job = given["runSync"]
    assert (job["status"], job["completed"], job["succeeded"]) == ("COMPLETED", True, True)
    assert job["output"][0]["choices"][0]["tokens"] == [" Paris."]


def test_run_and_status(given: dict[str, Any]) -> None:
    for job in (given["statusSync"], given["status"]):
        assert (job["status"], job["succeeded"]) == ("COMPLETED", True)
        assert job["output"][0]["choices"][0]["tokens"] == [" Paris."]
        assert isinstance(job["delayTime"], int)
        assert isinstance(job["executionTime"], int)


def test_stream(given: dict[str, Any]) -> None:
    items = [item["output"] for item in given["stream"]]
    assert [len(item["choices"][0]["tokens"]) for item in items] == [1, 3, 9, 27]
    assert items[-1]["usage"] == {"input": 4, "output": 40}


def test_cancel(given: dict[str, Any]) -> None:
    assert given["cancel"]["status"] == "CANCELLED"
    assert given["cancelled"]["status"] == "CANCELLED"


def test_health_and_purge_queue(given: dict[str, Any]) -> None:
    assert given["health"]["workers"]["ready"] == 1
    assert given["purgeQueue"] == {"removed": 0, "status": "completed"}


def test_job_that_failed_is_no_exception(given: dict[str, Any]) -> None:
    job = given["failed"]
    assert (job["status"], job["completed"], job["succeeded"]) == ("FAILED", True, False)
    assert "temperature" in job["error"]


def test_job_over_its_execution_timeout_is_timed_out(given: dict[str, Any]) -> None:
    job = given["timedOut"]
    assert (job["status"], job["completed"], job["succeeded"]) == ("TIMED_OUT", True, False)
    assert "executionTimeout" in job["error"]


def test_run_sync_continues_when_the_first_request_ends_without_result(given: dict[str, Any]) -> None:
    """It asks /status-sync, which RunPod's pages do not name, until the job ends: the script cancels it."""
    job, progress = given["unfinished"], given["progress"]

    assert (job["status"], job["completed"], job["succeeded"]) == ("CANCELLED", True, False)
    assert set(progress[:-1]) == {f"{job['id']}: IN_PROGRESS"}
    assert progress[-1] == f"{job['id']}: CANCELLED"


def test_requests_of_the_sdk_are_answered_without_it(server: ServedProcess) -> None:
    """The requests it sends, for machines without Node.js: `{}` as the body of every POST, `wait` in the query."""
    body = {"input": {"prompt": "The capital of France is", "sampling_params": {"max_tokens": 10, "temperature": 0}}}
    headers = {"Authorization": "Bearer none", "content-type": "application/json", "User-Agent": "RunPod-JS-SDK"}
    with httpx.Client(base_url=f"{server.url}/v2/local", headers=headers, verify=NO_TLS) as http:
        job_id = http.post("/run", json=body, timeout=HANG_S).json()["id"]
        answers = [
            http.get(f"/status-sync/{job_id}?wait=90000", timeout=HANG_S),
            http.get(f"/status/{job_id}", timeout=HANG_S),
            http.get(f"/stream/{job_id}", timeout=HANG_S),
            http.post(f"/cancel/{job_id}", json={}, timeout=HANG_S),
            http.post("/purge-queue", json={}, timeout=HANG_S),
            http.get("/health", timeout=HANG_S),
            http.post("/runsync?wait=90000", json=body, timeout=HANG_S),
        ]
    assert {answer.status_code for answer in answers} == {200}
    assert [answer.json().get("status") for answer in answers] == [
        "COMPLETED", "COMPLETED", "COMPLETED", "COMPLETED", "completed", None, "COMPLETED"
    ]  # fmt: skip
