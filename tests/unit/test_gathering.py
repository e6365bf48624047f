from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import pytest

from gptoss_bento.gathering import CoreWait, Gathering

_BUSY = "import os; os.sched_setaffinity(0, {int(__import__('sys').argv[1])}); print(flush=True)\nwhile True: pass"


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine()
    yield engine
    engine.end()


class Engine:
    """Says one word every 5 ms."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[int] = asyncio.Queue()
        self._task = asyncio.create_task(self._speak())

    async def _speak(self) -> None:
        for number in count():
            self.said.put_nowait(number)
            await asyncio.sleep(0.005)

    async def heard_at_once(self, gathering: Gathering, looks: int) -> float:
        """How many words a look finds on average."""
        receive = gathering.before(self.said.get)
        words = 0
        for _ in range(looks):
            await receive()
            words += 1
            while not self.said.empty():
                await receive()
                words += 1
        return words / looks

    def end(self) -> None:
        self._task.cancel()


async def test_without_a_wait_for_cores_each_word_is_received_as_it_comes(engine: Engine) -> None:
    assert await engine.heard_at_once(Gathering(engine.said.empty, lambda: 0.0), looks=20) < 1.5


async def test_a_wait_for_cores_gathers_words(engine: Engine) -> None:
    waited = count(0, 1)  # a second more at each look
    began = time.monotonic()
    assert await engine.heard_at_once(Gathering(engine.said.empty, lambda: float(next(waited))), looks=10) > 3
    assert time.monotonic() - began < 2, "no pause is longer than 50 ms"


async def test_when_the_cores_are_free_again_the_pauses_end(engine: Engine) -> None:
    waits = iter([0.0, 0.5, 1.0])
    gathering = Gathering(engine.said.empty, lambda: next(waits, 1.0))
    await engine.heard_at_once(gathering, looks=40)
    assert await engine.heard_at_once(gathering, looks=20) < 1.5


async def test_an_error_comes_out_as_it_is() -> None:
    async def receive() -> int:
        raise ConnectionError("engine")

    with pytest.raises(ConnectionError, match="engine"):
        await Gathering(lambda: True, lambda: 0.0).before(receive)()


@pytest.mark.skipif(not Path("/proc/thread-self/schedstat").exists(), reason="this kernel does not count the wait")
def test_the_wait_for_a_core_is_that_of_this_thread() -> None:
    found: list[float] = []

    def compete() -> None:
        core = min(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {core})  # of this thread alone
        wait = CoreWait()
        with subprocess.Popen([sys.executable, "-c", _BUSY, str(core)], stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            other.stdout.readline()
            before, end = wait.seconds(), time.monotonic() + 0.5
            while time.monotonic() < end:
                pass
            found.append(wait.seconds() - before)
            other.kill()

    thread = threading.Thread(target=compete)
    thread.start()
    thread.join()
    assert 0.05 < found[0] < 0.6


def test_a_kernel_that_does_not_count_gives_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> int:
        raise FileNotFoundError

    monkeypatch.setattr(os, "open", missing)
    assert CoreWait().seconds() == 0
