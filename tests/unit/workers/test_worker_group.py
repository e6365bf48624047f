from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gptoss_bento.errors import ConfigurationError, WorkerDiedError
from gptoss_bento.workers.worker_group import Stage, WorkerGroup, make_shared_folder
from tests.fakes import Calls
from tests.waiting import HANG_S

ENDED_PID = 2**22 + 1  # above any that Linux gives


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("t") / "group"
    make_shared_folder(made, 3)
    return made


@pytest.fixture
def group(folder: Path) -> list[WorkerGroup]:
    """Three workers; in one process here, each with its own view of the status file."""
    return [WorkerGroup(index, 3, folder) for index in range(3)]


def all_reach(group: list[WorkerGroup], stage: Stage) -> None:
    for member in group:
        member.enter(os.getpid())
        member.reach(stage)


def test_folder_is_private(folder: Path) -> None:
    assert folder.stat().st_mode & 0o777 == 0o700


def test_temporary_folder_that_is_too_deep_for_sockets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"TMPDIR is .* too long .* API_WORKERS=1"):
        make_shared_folder(tmp_path / ("x" * 90), 2)


@pytest.mark.parametrize(("limit", "shares"), [(30, [10, 10, 10]), (31, [11, 10, 10]), (2, [1, 1, 0]), (1, [1, 0, 0])])
def test_shares_add_up_to_the_limit(group: list[WorkerGroup], limit: int, shares: list[int]) -> None:
    assert [member.share(limit) for member in group] == shares


def test_single_worker_has_all() -> None:
    group = WorkerGroup()

    assert group.is_alone
    assert group.is_first
    assert group.share(30) == 30


def test_members_all_derive_the_same_addresses(group: list[WorkerGroup], folder: Path) -> None:
    assert group[0].addresses("input") == [f"ipc://{folder}/input-{index}" for index in range(3)]
    assert group[0].addresses("output") == group[2].addresses("output")
    assert not set(group[0].addresses("input")) & set(group[0].addresses("output"))


def test_service_is_ready_when_its_last_worker_is(group: list[WorkerGroup]) -> None:
    all_reach(group[:2], Stage.READY)
    assert not group[0].all_ready

    all_reach(group[2:], Stage.READY)
    assert [member.all_ready for member in group] == [True, True, True]


async def test_workers_wait_until_the_first_has_prepared(group: list[WorkerGroup]) -> None:
    all_reach(group, Stage.STARTING)
    waiting = asyncio.create_task(group[1].prepared())
    await asyncio.sleep(0)
    assert not waiting.done()

    group[0].reach(Stage.PREPARED)
    async with asyncio.timeout(HANG_S):
        await waiting


async def test_workers_serve_once_the_first_does(group: list[WorkerGroup]) -> None:
    """It sends the warm-up requests."""
    all_reach(group, Stage.STARTING)
    waiting = [asyncio.create_task(member.first_ready()) for member in group]
    await asyncio.sleep(0.01)
    assert [task.done() for task in waiting] == [True, False, False], "the first does not wait"

    group[0].reach(Stage.PREPARED)
    await asyncio.sleep(0.3)
    assert [task.done() for task in waiting[1:]] == [False, False], "prepared is not ready"

    group[0].reach(Stage.READY)
    async with asyncio.timeout(HANG_S):
        await asyncio.gather(*waiting)


@pytest.mark.parametrize("end", [WorkerGroup.fail, WorkerGroup.leave])
async def test_workers_do_not_wait_for_a_first_worker_that_ends(
    group: list[WorkerGroup], end: Callable[[WorkerGroup], None]
) -> None:
    all_reach(group, Stage.STARTING)
    end(group[0])

    async with asyncio.timeout(HANG_S):
        await group[1].first_ready()


async def test_single_worker_does_not_wait() -> None:
    async with asyncio.timeout(HANG_S):
        await WorkerGroup().first_ready()


def test_worker_with_the_fewest_connections_takes_the_next(group: list[WorkerGroup]) -> None:
    all_reach(group, Stage.READY)
    for member, connections in zip(group, (3, 1, 1), strict=True):
        member.report_connections(connections)

    assert [member.is_least_loaded for member in group] == [False, True, True]


def test_worker_that_has_not_started_takes_none(group: list[WorkerGroup]) -> None:
    all_reach(group[:1], Stage.READY)
    group[0].report_connections(5)

    assert group[0].is_least_loaded


def test_jobs_of_all_count(group: list[WorkerGroup]) -> None:
    for member, jobs in zip(group, (2, 0, 1), strict=True):
        member.report_jobs(jobs)

    assert [member.jobs for member in group] == [3, 3, 3]


def test_processes_of_the_group_are_known(group: list[WorkerGroup]) -> None:
    group[1].enter(os.getpid())

    assert group[0].has(os.getpid())
    assert not group[0].has(ENDED_PID)


# The failure of another


def test_group_without_a_dead_worker_has_no_trouble(group: list[WorkerGroup]) -> None:
    all_reach(group[:2], Stage.STARTING)  # the third is not started yet

    assert group[0].trouble() is None


@pytest.mark.parametrize("stage", [Stage.STARTING, Stage.PREPARED, Stage.READY])
def test_dead_worker_is_named(group: list[WorkerGroup], stage: Stage) -> None:
    all_reach(group, stage)
    group[1].enter(ENDED_PID)
    group[1].reach(stage)

    assert group[0].trouble() == "API worker 2 died without a message (killed, or out of memory)."
    assert group[1].trouble() is None, "no worker watches itself"


def test_killed_process_that_was_not_waited_for_is_dead(group: list[WorkerGroup]) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    group[1].enter(child.pid)
    assert group[0].trouble() is None

    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
    assert group[0].trouble() is not None
    child.communicate()


def test_worker_that_failed_takes_the_others_with_it(group: list[WorkerGroup]) -> None:
    all_reach(group, Stage.READY)
    group[2].fail()
    assert group[0].trouble() == "API worker 3 cannot go on."

    group[2].leave()
    assert group[0].trouble() == "API worker 3 cannot go on.", "it may leave before the others look"


def test_worker_that_left_gracefully_is_no_trouble(group: list[WorkerGroup]) -> None:
    all_reach(group, Stage.READY)
    group[1].enter(ENDED_PID)
    group[1].leave()

    assert group[0].trouble() is None


async def test_work_is_done_together(group: list[WorkerGroup]) -> None:
    ended_by: list[WorkerDiedError] = []

    async def work() -> int:
        return 3

    assert await group[0].together(work(), ended_by.append) == 3
    assert await WorkerGroup().together(work(), ended_by.append) == 3
    assert ended_by == []


async def test_error_of_the_work_comes_through() -> None:
    ended_by: list[WorkerDiedError] = []

    async def work() -> None:
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        await WorkerGroup().together(work(), ended_by.append)


async def test_work_is_cancelled_when_another_worker_dies(group: list[WorkerGroup]) -> None:
    ended, ended_by = [], list[WorkerDiedError]()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("gracefully")

    all_reach(group, Stage.READY)
    together = asyncio.create_task(group[0].together(work(), ended_by.append))
    await asyncio.sleep(0.01)
    group[1].enter(ENDED_PID)
    with pytest.raises(WorkerDiedError, match="API worker 2 died"):
        await together

    assert ended == ["gracefully"]
    assert len(ended_by) == 1


async def test_owner_of_the_engine_is_the_last_to_end_it(group: list[WorkerGroup]) -> None:
    all_reach(group, Stage.READY)
    group[0].reach(Stage.STOPPING)
    looks = Calls(None)
    waiting = asyncio.create_task(group[0].others_left(looks))
    group[1].leave()
    await asyncio.sleep(0.01)
    assert not waiting.done()
    assert looks.made, "the engine may crash meanwhile, and its owner notifies the others"

    group[2].enter(ENDED_PID)  # killed meanwhile
    async with asyncio.timeout(HANG_S):
        await waiting
    await WorkerGroup().others_left(looks)


def test_last_to_leave_removes_the_folder(group: list[WorkerGroup], folder: Path) -> None:
    all_reach(group, Stage.READY)
    group[0].leave()
    group[1].leave()
    assert folder.exists()

    group[2].leave()
    assert not folder.exists()


def test_stage_never_goes_back(group: list[WorkerGroup]) -> None:
    group[0].enter(os.getpid())
    group[0].reach(Stage.STOPPING)
    group[0].reach(Stage.READY)

    assert group[1].is_ending


@pytest.mark.parametrize("end", [lambda member: member.reach(Stage.STOPPING), WorkerGroup.leave, WorkerGroup.fail])
def test_group_is_ending_as_soon_as_one_worker_is(group: list[WorkerGroup], end: Callable[[WorkerGroup], None]) -> None:
    all_reach(group, Stage.READY)
    assert not group[0].is_ending

    end(group[1])
    assert group[0].is_ending


def test_workers_reach_each_other_by_sockets(group: list[WorkerGroup], folder: Path) -> None:
    assert group[1].own_socket("http") == folder / "http-1"
    assert group[1].other_sockets("http") == [folder / "http-0", folder / "http-2"]
    assert WorkerGroup().own_socket("http") is None
    assert WorkerGroup().other_sockets("http") == []
