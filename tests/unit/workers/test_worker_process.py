from __future__ import annotations

import signal
from pathlib import Path

import pytest

from gptoss_bento.errors import WorkerDiedError
from gptoss_bento.workers import supervisor, worker_process
from gptoss_bento.workers.worker_group import WorkerGroup
from tests.fakes import Calls

pytestmark = pytest.mark.usefixtures("prctl")


@pytest.mark.usefixtures("note_path")
def test_worker_ends_with_its_supervisor(prctl: Calls) -> None:
    worker_process.enter_worker(WorkerGroup())

    assert prctl.made == [(1, signal.SIGTERM)]  # PR_SET_PDEATHSIG


@pytest.mark.usefixtures("note_path")
def test_worker_that_was_killed_is_not_started_again() -> None:
    worker_process.enter_worker(WorkerGroup())

    with pytest.raises(WorkerDiedError, match="died without a message"):
        worker_process.enter_worker(WorkerGroup())


@pytest.mark.usefixtures("note_path")
def test_worker_that_ended_as_it_should_may_start_again(tmp_path: Path) -> None:
    worker_process.enter_worker(WorkerGroup())
    worker_process.leave_worker(WorkerGroup())
    assert list(tmp_path.iterdir()) == []

    worker_process.enter_worker(WorkerGroup())

    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.usefixtures("note_path")
def test_worker_may_leave_twice(tmp_path: Path) -> None:
    worker_process.leave_worker(WorkerGroup())

    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_supervisor")
def test_worker_without_a_supervisor_may_start_any_number_of_times(prctl: Calls) -> None:
    worker_process.enter_worker(WorkerGroup())
    worker_process.enter_worker(WorkerGroup())
    worker_process.leave_worker(WorkerGroup())

    assert len(prctl.made) == 2


def test_workers_find_their_index_in_the_group_that_the_supervisor_made(note_path: Path) -> None:
    supervisor.create_worker_group(3)
    groups = [worker_process.own_worker_group(number) for number in (1, 2, 3)]

    assert [(group.index, group.count) for group in groups] == [(0, 3), (1, 3), (2, 3)]
    groups[2].report_jobs(4)
    assert groups[0].jobs == 4, "they share a status file"
    assert groups[1].own_socket("x") == note_path.with_suffix("") / "x-1"


def test_single_worker_shares_nothing(note_path: Path) -> None:
    supervisor.create_worker_group(1)

    assert worker_process.own_worker_group(1).is_alone
    assert list(note_path.parent.iterdir()) == []


def test_worker_marks_are_separate(note_path: Path) -> None:
    supervisor.create_worker_group(2)
    groups = [worker_process.own_worker_group(number) for number in (1, 2)]
    for group in groups:
        worker_process.enter_worker(group)
    with pytest.raises(WorkerDiedError):
        worker_process.enter_worker(groups[1])
    for group in groups:
        worker_process.leave_worker(group)

    assert list(note_path.parent.iterdir()) == []
