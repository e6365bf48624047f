"""States and the job object."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gptoss_bento.state.job import Job, Status, before

QUEUED = Job("j-u1", Status.IN_QUEUE, 1000, None, None, 99999, None, 0, 0, None, 0, 0)
RUNNING = replace(QUEUED, status=Status.IN_PROGRESS, started_at=1003, worker_id="w", attempt=1)
ENDED = replace(RUNNING, status=Status.COMPLETED, ended_at=1044)


def body(job: Job, *items: str) -> dict[str, object]:
    parsed: dict[str, object] = json.loads(job.body(items))
    return parsed


def test_job_object_of_a_waiting_job_has_no_times() -> None:
    assert body(QUEUED) == {"id": "j-u1", "status": "IN_QUEUE"}


def test_job_object_of_a_running_job_has_its_delay() -> None:
    assert body(RUNNING) == {"id": "j-u1", "status": "IN_PROGRESS", "delayTime": 3, "workerId": "w"}


def test_job_object_of_a_completed_job_has_its_output() -> None:
    assert body(ENDED, '{"a":1}', '"b"') == {
        "id": "j-u1",
        "status": "COMPLETED",
        "delayTime": 3,
        "executionTime": 41,
        "workerId": "w",
        "output": [{"a": 1}, "b"],
    }


def test_job_object_may_have_an_empty_output() -> None:
    assert body(ENDED)["output"] == []


@pytest.mark.parametrize("status", [Status.FAILED, Status.TIMED_OUT])
def test_job_object_of_a_failed_job_has_its_error_and_no_output(status: Status) -> None:
    failed = body(replace(ENDED, status=status, error="n must be 1", retries=2), "1")

    assert failed["error"] == "n must be 1"
    assert failed["retries"] == 2
    assert "output" not in failed


def test_job_object_of_a_job_cancelled_in_the_queue_has_no_times() -> None:
    cancelled = replace(QUEUED, status=Status.CANCELLED, ended_at=1044)

    assert body(cancelled) == {"id": "j-u1", "status": "CANCELLED"}


def test_job_object_has_no_negative_duration_after_a_clock_change() -> None:
    job = body(replace(ENDED, started_at=900, ended_at=800))

    assert (job["delayTime"], job["executionTime"]) == (0, 0)


def test_status_after_an_end_is_no_other_end() -> None:
    ends = {status for status in Status if status.is_terminal}

    assert ends == {Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.TIMED_OUT}
    for end in ends:
        assert not before(end) & ends
