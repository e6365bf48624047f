"""Two services of one machine with the same cache folder: neither takes the other's jobs. The engine is a fake one."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import holds
from tests.server import NO_TLS, ServedProcess, all_processes_end, serve
from tests.waiting import HANG_S, wait_for

pytestmark = pytest.mark.slow

SERVICE = "tests.engineless_service:GptOss"
SHORT = {"input": {"prompt": "one two", "sampling_params": {"max_tokens": 3}}}


def variables(folder: Path, key: str, **more: str) -> dict[str, str]:
    own = {"PROFILE": "demo", "JOB_STORE_URL": "", "GPTOSS_BENTO_CACHE": str(folder / "cache"), "API_KEY": key}
    return {**own, **more}


def call(served: ServedProcess, key: str, path: str, body: Any = None) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    method = "GET" if body is None else "POST"
    return httpx.request(method, served.url + path, json=body, headers=headers, verify=NO_TLS, timeout=HANG_S)


def wait_for_status(served: ServedProcess, key: str, job_id: str, status: str) -> dict[str, Any]:
    job: dict[str, Any] = {}

    def has_it() -> bool:
        job.update(call(served, key, f"/status/{job_id}").json())
        return bool(job["status"] == status)

    wait_for(has_it, lambda: f"{job} is not {status}:\n{served.output()[-3000:]}")
    return job


def job_store_of(served: ServedProcess) -> str:
    """The row of the plan."""
    return next(line for line in served.output().splitlines() if line.strip().startswith("job store"))


def test_second_service_has_a_queue_of_its_own_and_both_find_their_jobs_after_a_restart(tmp_path: Path) -> None:
    held = holds.held_by(tmp_path, holds.ANSWERS)  # the first service's answers stay at their first token
    a = variables(tmp_path, "key-a", MAX_CONCURRENCY="1", DRAIN_TIMEOUT="0", **held)
    b = variables(tmp_path, "key-b", MAX_CONCURRENCY="8", DRAIN_TIMEOUT="0", NATIVE_OUTPUT_FORMAT="openai")
    with serve(tmp_path, a, service=SERVICE) as first:
        first.wait_until_ready()
        running = call(first, "key-a", "/run", SHORT).json()["id"]
        wait_for_status(first, "key-a", running, "IN_PROGRESS")
        queued = call(first, "key-a", "/run", SHORT).json()["id"]
        with serve(tmp_path, b, service=SERVICE) as second:
            second.wait_until_ready()
            assert "jobs/demo.sqlite3  [default: no other running service has it]" in job_store_of(first)
            said = f"demo.sqlite3 is in use by the service on port {first.port}; only JOB_STORE_URL makes"
            assert f"jobs/demo+2.sqlite3  [{said}" in job_store_of(second)
            assert f"demo+2.sqlite3: {said}" in second.output()

            own = call(second, "key-b", "/runsync", SHORT).json()
            assert "text" in own["output"][0]["choices"][0], "by its own settings"
            for served, key, job_id in ((second, "key-b", queued), (first, "key-a", own["id"])):
                assert call(served, key, f"/status/{job_id}").status_code == 404
            time.sleep(2)  # several polls of a service with seven slots free
            assert call(first, "key-a", f"/status/{queued}").json()["status"] == "IN_QUEUE"
            assert call(second, "key-b", "/health").json()["jobs"]["inQueue"] == 0
            kept = call(second, "key-b", "/run", SHORT).json()["id"]
            wait_for_status(second, "key-b", kept, "COMPLETED")
            with all_processes_end(first):
                first.terminate()
            with all_processes_end(second):
                second.terminate()
    # The second first: it must find its own file, though the other one is free.
    with serve(tmp_path, b, service=SERVICE, port=second.port) as second:
        second.wait_until_ready()
        assert call(second, "key-b", f"/status/{kept}").json()["status"] == "COMPLETED"
        assert call(second, "key-b", f"/status/{queued}").status_code == 404
        with serve(tmp_path, a, service=SERVICE, port=first.port) as first:
            first.wait_until_ready()
            holds.release(tmp_path, holds.ANSWERS)
            job = wait_for_status(first, "key-a", queued, "COMPLETED")
            assert "tokens" in job["output"][0]["choices"][0], "by the settings of the service that accepted it"


def test_workers_of_a_service_share_its_file_and_a_named_store_is_shared(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    two = variables(tmp_path, "key", API_WORKERS="2", TMPDIR=str(tmp_path / "t"))
    with serve(tmp_path, two, service=SERVICE) as first:
        first.wait_until_ready()
        done = [call(first, "key", "/runsync", SHORT).json() for _ in range(6)]
        jobs = tmp_path / "cache" / "jobs"
        assert [path.name for path in sorted(jobs.glob("*.sqlite3"))] == ["demo.sqlite3"]
        assert json.loads((jobs / "demo.sqlite3.lock").read_text())["port"] == first.port

        named = variables(tmp_path, "key", JOB_STORE_URL=f"sqlite:///{jobs / 'demo.sqlite3'}")
        with serve(tmp_path, named, service=SERVICE) as second:
            second.wait_until_ready()
            assert "job store" in job_store_of(second)
            assert "JOB_STORE_URL; services with the same one share a queue" in job_store_of(second)
            assert call(second, "key", f"/status/{done[0]['id']}").json()["status"] == "COMPLETED"
        assert [path.name for path in sorted(jobs.glob("*.sqlite3"))] == ["demo.sqlite3"]
