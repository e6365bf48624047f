"""Whether a worker still lives."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

from gptoss_bento.state.worker_identity import is_gone, own_identity


def test_this_process_lives_under_a_name_of_its_own() -> None:
    assert not is_gone(own_identity())
    assert own_identity().worker_id != own_identity().worker_id


def test_an_ended_process_is_gone() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    assert is_gone(replace(own_identity(), pid=ended.pid))


def test_a_process_that_took_the_number_over_is_another() -> None:
    assert is_gone(replace(own_identity(), started=1.0))


def test_of_another_machine_nothing_is_known() -> None:
    assert not is_gone(replace(own_identity(), machine="elsewhere", started=1.0))
