from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gptoss_bento.errors import ConfigurationError, WorkerDiedError
from gptoss_bento.workers.worker_group import Stage, Team, make_folder
from tests.fakes import Calls

ENDED_PID = 2**22 + 1  # above any that Linux gives


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("t") / "team"
    make_folder(made, 3)
    return made


@pytest.fixture
def team(folder: Path) -> list[Team]:
    """Three workers; in one process here, each with its own view of the board."""
    return [Team(index, 3, folder) for index in range(3)]


def all_reach(team: list[Team], stage: Stage) -> None:
    for member in team:
        member.enter(os.getpid())
        member.reach(stage)


def test_the_folder_is_nobody_elses(folder: Path) -> None:
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_temporary_folder_that_is_too_deep_for_sockets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"TMPDIR is .* too long .* API_WORKERS=1"):
        make_folder(tmp_path / ("x" * 90), 2)


@pytest.mark.parametrize(("limit", "shares"), [(30, [10, 10, 10]), (31, [11, 10, 10]), (2, [1, 1, 0]), (1, [1, 0, 0])])
def test_shares_add_up_to_the_limit(team: list[Team], limit: int, shares: list[int]) -> None:
    assert [member.share(limit) for member in team] == shares


def test_a_single_worker_has_all() -> None:
    team = Team()

    assert team.is_alone
    assert team.is_first
    assert team.share(30) == 30


def test_all_derive_the_same_addresses(team: list[Team], folder: Path) -> None:
    assert team[0].addresses("input") == [f"ipc://{folder}/input-{index}" for index in range(3)]
    assert team[0].addresses("output") == team[2].addresses("output")
    assert not set(team[0].addresses("input")) & set(team[0].addresses("output"))


def test_the_service_is_ready_when_its_last_worker_is(team: list[Team]) -> None:
    all_reach(team[:2], Stage.READY)
    assert not team[0].all_ready

    all_reach(team[2:], Stage.READY)
    assert [member.all_ready for member in team] == [True, True, True]


async def test_others_wait_until_the_first_has_prepared(team: list[Team]) -> None:
    all_reach(team, Stage.STARTING)
    waiting = asyncio.create_task(team[1].prepared())
    await asyncio.sleep(0)
    assert not waiting.done()

    team[0].reach(Stage.PREPARED)
    async with asyncio.timeout(5):
        await waiting


async def test_others_serve_once_the_first_does(team: list[Team]) -> None:
    """It sends the warm-up requests."""
    all_reach(team, Stage.STARTING)
    waiting = [asyncio.create_task(member.first_ready()) for member in team]
    await asyncio.sleep(0.01)
    assert [task.done() for task in waiting] == [True, False, False], "the first waits for nobody"

    team[0].reach(Stage.PREPARED)
    await asyncio.sleep(0.3)
    assert [task.done() for task in waiting[1:]] == [False, False], "prepared is not ready"

    team[0].reach(Stage.READY)
    async with asyncio.timeout(5):
        await asyncio.gather(*waiting)


@pytest.mark.parametrize("end", [Team.fail, Team.leave])
async def test_nobody_waits_for_a_first_worker_that_ends(team: list[Team], end: Callable[[Team], None]) -> None:
    all_reach(team, Stage.STARTING)
    end(team[0])

    async with asyncio.timeout(5):
        await team[1].first_ready()


async def test_a_single_worker_waits_for_nobody() -> None:
    async with asyncio.timeout(5):
        await Team().first_ready()


def test_the_worker_with_the_fewest_connections_takes_the_next(team: list[Team]) -> None:
    all_reach(team, Stage.READY)
    for member, connections in zip(team, (3, 1, 1), strict=True):
        member.tell_connections(connections)

    assert [member.is_least_loaded for member in team] == [False, True, True]


def test_a_worker_that_has_not_started_takes_none(team: list[Team]) -> None:
    all_reach(team[:1], Stage.READY)
    team[0].tell_connections(5)

    assert team[0].is_least_loaded


def test_the_jobs_of_all_count(team: list[Team]) -> None:
    for member, jobs in zip(team, (2, 0, 1), strict=True):
        member.tell_jobs(jobs)

    assert [member.jobs for member in team] == [3, 3, 3]


def test_the_processes_of_the_team_are_known(team: list[Team]) -> None:
    team[1].enter(os.getpid())

    assert team[0].has(os.getpid())
    assert not team[0].has(ENDED_PID)


# The death of another


def test_while_all_live_there_is_no_trouble(team: list[Team]) -> None:
    all_reach(team[:2], Stage.STARTING)  # the third is not started yet

    assert team[0].trouble() is None


@pytest.mark.parametrize("stage", [Stage.STARTING, Stage.PREPARED, Stage.READY])
def test_a_dead_worker_is_named(team: list[Team], stage: Stage) -> None:
    all_reach(team, stage)
    team[1].enter(ENDED_PID)
    team[1].reach(stage)

    assert team[0].trouble() == "API worker 2 died without a word (killed, or out of memory)."
    assert team[1].trouble() is None, "nobody watches himself"


def test_a_killed_process_that_nobody_has_waited_for_is_dead(team: list[Team]) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    team[1].enter(child.pid)
    assert team[0].trouble() is None

    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
    assert team[0].trouble() is not None
    child.communicate()


def test_a_worker_that_failed_takes_the_others_with_it(team: list[Team]) -> None:
    all_reach(team, Stage.READY)
    team[2].fail()
    assert team[0].trouble() == "API worker 3 cannot go on."

    team[2].leave()
    assert team[0].trouble() == "API worker 3 cannot go on.", "it may leave before the others look"


def test_a_worker_that_left_in_order_is_no_trouble(team: list[Team]) -> None:
    all_reach(team, Stage.READY)
    team[1].enter(ENDED_PID)
    team[1].leave()

    assert team[0].trouble() is None


async def test_work_is_done_together(team: list[Team]) -> None:
    ended_by: list[WorkerDiedError] = []

    async def work() -> int:
        return 3

    assert await team[0].together(work(), ended_by.append) == 3
    assert await Team().together(work(), ended_by.append) == 3
    assert ended_by == []


async def test_the_error_of_the_work_comes_through() -> None:
    ended_by: list[WorkerDiedError] = []

    async def work() -> None:
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        await Team().together(work(), ended_by.append)


async def test_work_is_given_up_in_order_when_another_dies(team: list[Team]) -> None:
    ended, ended_by = [], list[WorkerDiedError]()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("in order")

    all_reach(team, Stage.READY)
    together = asyncio.create_task(team[0].together(work(), ended_by.append))
    await asyncio.sleep(0.01)
    team[1].enter(ENDED_PID)
    with pytest.raises(WorkerDiedError, match="API worker 2 died"):
        await together

    assert ended == ["in order"]
    assert len(ended_by) == 1


async def test_the_owner_of_the_engine_is_the_last_to_end_it(team: list[Team]) -> None:
    all_reach(team, Stage.READY)
    team[0].reach(Stage.STOPPING)
    looks = Calls(None)
    waiting = asyncio.create_task(team[0].others_left(looks))
    team[1].leave()
    await asyncio.sleep(0.01)
    assert not waiting.done()
    assert looks.made, "the engine may crash meanwhile, and the others hear it from its owner"

    team[2].enter(ENDED_PID)  # killed meanwhile
    async with asyncio.timeout(5):
        await waiting
    await Team().others_left(looks)


def test_the_last_to_leave_removes_the_folder(team: list[Team], folder: Path) -> None:
    all_reach(team, Stage.READY)
    team[0].leave()
    team[1].leave()
    assert folder.exists()

    team[2].leave()
    assert not folder.exists()


def test_nothing_leads_back(team: list[Team]) -> None:
    team[0].enter(os.getpid())
    team[0].reach(Stage.STOPPING)
    team[0].reach(Stage.READY)

    assert team[1].is_ending


@pytest.mark.parametrize("end", [lambda member: member.reach(Stage.STOPPING), Team.leave, Team.fail])
def test_the_service_is_ending_as_soon_as_one_worker_is(team: list[Team], end: Callable[[Team], None]) -> None:
    all_reach(team, Stage.READY)
    assert not team[0].is_ending

    end(team[1])
    assert team[0].is_ending


def test_workers_reach_each_other_by_sockets(team: list[Team], folder: Path) -> None:
    assert team[1].own_socket("http") == folder / "http-1"
    assert team[1].other_sockets("http") == [folder / "http-0", folder / "http-2"]
    assert Team().own_socket("http") is None
    assert Team().other_sockets("http") == []
