from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from gptoss_bento.workers import sigterm
from gptoss_bento.workers.worker_group import WorkerGroup
from tests.fakes import Calls
from tests.waiting import HANG_S


@pytest.mark.parametrize(("drain_s", "limit_s"), [(0.0, 8.0), (2.0, 8.0), (5.0, 8.0), (60.0, 63.0)])
def test_shutdown_has_a_limit_that_running_work_extends(
    drain_s: float, limit_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_down = Calls()
    monkeypatch.setattr(sigterm, "_count_down", count_down)

    sigterm.limit_shutdown(drain_s, WorkerGroup())

    assert [made[0] for made in count_down.made] == [limit_s]


# A worker that hangs, with a child that ignores SIGTERM, as a loading engine does.
HANGING = """
import subprocess, time
from gptoss_bento.workers import sigterm
from gptoss_bento.workers.worker_group import WorkerGroup
sigterm.SHUTDOWN_LIMIT_S = 0.1
child = subprocess.Popen(["sh", "-c", "trap '' TERM; echo up; exec sleep 60"], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
sigterm.limit_shutdown(0, WorkerGroup())
time.sleep(60)
"""


def test_worker_that_hangs_is_ended_with_its_children() -> None:
    ended = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=HANG_S)

    assert ended.returncode == 0, ended.stderr
    assert not psutil.pid_exists(int(ended.stdout)) or psutil.Process(int(ended.stdout)).status() == "zombie"
