"""Numbers that several processes see. A second table on the same file acts as another process."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gptoss_bento.access import shared_counters
from gptoss_bento.access.shared_counters import CountersFullError, SharedCounters
from tests.fakes import Clock
from tests.server import REPOSITORY


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_new_row_is_empty_and_keeps_what_is_written() -> None:
    table = SharedCounters()
    row = table.row("alice")
    assert (row.bucket(0), row.bucket(1), row.in_use) == ((0, 0), (0, 0), 0)
    row.set_bucket(1, -2.5, 10.0)
    row.use(2)
    row.use(-1)
    assert table.row("alice") is row
    assert (row.bucket(0), row.bucket(1), row.in_use) == ((0, 0), (-2.5, 10.0), 1)
    assert table.row("bob").in_use == 0


def test_counters_without_a_file_are_private() -> None:
    SharedCounters().row("alice").use(1)
    assert SharedCounters().row("alice").in_use == 0


OTHER = """
import sys
from pathlib import Path
from gptoss_bento.access.shared_counters import SharedCounters
row = SharedCounters(Path(sys.argv[1])).row("alice")
row.use(3)
row.set_bucket(0, 7.0, 1.0)
print(row.in_use, flush=True)
sys.stdin.read()
"""


def test_processes_count_together_and_one_that_is_gone_not_any_more(tmp_path: Path) -> None:
    file = tmp_path / "limits"
    mine = SharedCounters(file).row("alice")
    mine.use(1)
    command = [sys.executable, "-c", OTHER, str(file)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "4\n"
        assert (mine.in_use, mine.bucket(0)) == (4, (7.0, 1.0))
        other.kill()
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as next_one:
        assert next_one.stdout is not None
        assert next_one.stdout.readline() == "4\n"  # it took the place of the one before, whose 3 are gone
        next_one.kill()


def test_lock_of_a_stopped_process_blocks_no_other(tmp_path: Path) -> None:
    file = tmp_path / "limits"
    table = SharedCounters(file)
    held = os.open(file, os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    table.row("alice").use(1)
    with table.locked():
        assert table.row("alice").in_use == 1
    os.close(held)


def test_file_is_for_this_user_alone(tmp_path: Path) -> None:
    SharedCounters(tmp_path / "limits")
    assert (tmp_path / "limits").stat().st_mode & 0o077 == 0


def test_rows_are_separate_for_many_names() -> None:
    table = SharedCounters()
    for number in range(500):
        table.row(f"key {number}").use(number)
    assert [table.row(f"key {number}").in_use for number in range(500)] == list(range(500))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_counters, "ROWS", 2)


@pytest.mark.usefixtures("small")
def test_rows_that_are_all_in_use_make_another_name_an_error(clock: Clock) -> None:
    table = SharedCounters(clock=clock)
    table.row("a").use(1)
    table.row("b").set_bucket(0, -1.0, clock())
    clock.now += 61  # a runs yet, b is in debt
    with pytest.raises(CountersFullError, match="more than 2 names"):
        table.row("c")
    assert (table.row("a").in_use, table.row("b").bucket(0)[0]) == (1, -1.0)


@pytest.mark.usefixtures("small")
def test_rows_that_are_idle_are_evicted_for_other_names(clock: Clock) -> None:
    table = SharedCounters(clock=clock)
    running, idle = table.row("a"), table.row("b")
    running.use(1)
    idle.set_bucket(0, 3.0, clock())
    with pytest.raises(CountersFullError):
        table.row("c")
    clock.now += 61
    assert table.row("c").bucket(0) == (0, 0)
    assert table.row("a").in_use == 1
    with pytest.raises(CountersFullError):
        table.row("b")
    clock.now += 61
    assert (table.row("b").bucket(0), table.row("b").in_use, running.in_use) == ((0, 0), 0, 1)


@pytest.mark.usefixtures("small")
def test_row_that_another_process_gave_away_is_not_used_any_more(tmp_path: Path, clock: Clock) -> None:
    one, other = SharedCounters(tmp_path / "limits", clock), SharedCounters(tmp_path / "limits", clock)
    one.row("a").use(1)
    was_bs = one.row("b")
    clock.now += 61
    other.row("c").set_bucket(0, 5.0, clock())
    with pytest.raises(CountersFullError):
        one.row("b")
    one.row("a").use(-1)
    clock.now += 61
    assert one.row("b") is not was_bs
    assert other.row("b").bucket(0) == (0, 0)


@pytest.mark.usefixtures("small")
def test_names_that_stay_have_rows_beside(clock: Clock) -> None:
    table = SharedCounters(clock=clock)
    for name in ("a", "b"):
        table.row(name).use(1)
    for number in range(shared_counters.PINNED):
        table.row(f"pinned {number}", pinned=True).use(number)
    clock.now += 3601
    with pytest.raises(CountersFullError):
        table.row("c")
    assert [table.row(f"pinned {number}", pinned=True).in_use for number in range(shared_counters.PINNED)] == list(
        range(16)
    )
