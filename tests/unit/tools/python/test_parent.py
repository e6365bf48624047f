"""The process that owns containers is killed: no child outlives it, not one that computes, nor one that is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from gptoss_bento.tools.python import confinement
from tests.server import REPOSITORY
from tests.waiting import wait_for

PROGRAM = """
import asyncio
from gptoss_bento.tools.python.containers import Containers, Limits
from gptoss_bento.tools.python.process import start

async def main():
    pids = []
    async def started(limits):
        child = await start(limits)
        pids.append(child.pid)
        return child
    containers = Containers(Limits(), started)
    await containers.run("idle", "1")
    loops = [asyncio.create_task(containers.run(f"busy {i}", code)) for i, code in enumerate(CODES)]
    while len(pids) < 1 + len(CODES):
        await asyncio.sleep(0.01)
    print(*pids, flush=True)
    await asyncio.gather(*loops)

CODES = [
    "while True: pass",
    "import signal\\nfor n in {*range(1, 32)} - {9, 19}: signal.signal(n, signal.SIG_IGN)\\nwhile True: pass",
    "import ctypes\\nctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\\nwhile True: pass",
]
asyncio.run(main())
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_children_end_with_their_parent(end: signal.Signals) -> None:
    if problem := confinement.problem():
        pytest.skip(f"this machine cannot confine: {problem}")
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        assert parent.stdout
        children = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(children) == 4

        parent.send_signal(end)

    wait_for(lambda: not [pid for pid in children if is_running(pid)])


def is_running(pid: int) -> bool:
    """Whether it has not ended; a zombie, which waits for the machine's init, has."""
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
