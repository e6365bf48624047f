"""Whether the process of a worker still runs."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

from gptoss_bento.state.worker_identity import is_gone, own_identity


def test_worker_identity_of_this_process_is_alive_and_new_each_time() -> None:
    assert not is_gone(own_identity())
    assert own_identity().worker_id != own_identity().worker_id


def test_worker_identity_of_an_ended_process_is_gone() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    assert is_gone(replace(own_identity(), pid=ended.pid))


def test_worker_identity_with_a_reused_pid_is_gone() -> None:
    assert is_gone(replace(own_identity(), started=1.0))


def test_worker_identity_of_another_machine_is_not_known_to_be_gone() -> None:
    assert not is_gone(replace(own_identity(), machine="elsewhere", started=1.0))
