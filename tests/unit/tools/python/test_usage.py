"""What a process uses."""

from __future__ import annotations

import os
import subprocess
import sys

from gptoss_bento.tools.python.usage import Usage, usage


def test_usage_of_a_process_is_the_kernels_account() -> None:
    used = usage(os.getpid())

    assert used.memory_bytes > 10**7
    assert used.cpu_s > 0
    assert used.threads >= 1


def test_usage_of_a_process_that_has_ended_is_nothing() -> None:
    ended = subprocess.run(
        [sys.executable, "-S", "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )

    assert usage(int(ended.stdout)) == Usage(0, 0.0, 0)
