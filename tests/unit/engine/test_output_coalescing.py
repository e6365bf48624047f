from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from gptoss_bento.engine.output_coalescing import CoreWait, OutputCoalescer

_BUSY = "import os; os.sched_setaffinity(0, {int(__import__('sys').argv[1])}); print(flush=True)\nwhile True: pass"


class Engine:
    """Says one word every 5 ms."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[int] = asyncio.Queue()
        self._task = asyncio.create_task(self._speak())

    async def _speak(self) -> None:
        for number in count():
            self.said.put_nowait(number)
            await asyncio.sleep(0.005)

    async def receives_immediately(self, coalescer: OutputCoalescer, looks: int) -> float:
        """How many words a look finds on average."""
        receive = coalescer.before(self.said.get)
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


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine()
    yield engine
    engine.end()


@dataclass
class Thread:
    """Waits for a core for this share of its time, and works for so many requests."""

    share: float = 0.0
    requests: int = 100
    waited: float = 0.0
    now: float = 0.0
    look_s: float = 0.01

    def waited_s(self) -> float:
        self.waited += self.share * self.look_s
        return self.waited

    def clock(self) -> float:
        self.now += self.look_s
        return self.now

    def coalescer(self, engine: Engine) -> OutputCoalescer:
        return OutputCoalescer(engine.said.empty, lambda: self.requests, self.waited_s, self.clock)


async def test_output_is_received_message_by_message_without_a_wait_for_cores(engine: Engine) -> None:
    assert await engine.receives_immediately(Thread(share=0.001).coalescer(engine), looks=20) < 1.5


async def test_output_is_coalesced_during_a_wait_for_cores(engine: Engine) -> None:
    words = await engine.receives_immediately(Thread(share=0.5).coalescer(engine), looks=10)
    assert 1.5 < words <= 11, "no pause is longer than 50 ms"


async def test_stream_that_is_alone_is_not_delayed(engine: Engine) -> None:
    assert await engine.receives_immediately(Thread(share=0.9, requests=1).coalescer(engine), looks=20) < 1.5


async def test_pauses_end_when_the_cores_are_free_again(engine: Engine) -> None:
    thread = Thread(share=0.5)
    coalescer = thread.coalescer(engine)
    await engine.receives_immediately(coalescer, looks=10)
    thread.share = 0
    await engine.receives_immediately(coalescer, looks=30)
    assert await engine.receives_immediately(coalescer, looks=20) < 1.5


async def test_wait_of_an_idle_hour_makes_no_pause(engine: Engine) -> None:
    """Its loop wakes some 20 times a second, and each time a core may take some microseconds to come."""
    thread = Thread(share=20 * 50e-6, look_s=3600)
    coalescer = thread.coalescer(engine)
    await engine.receives_immediately(coalescer, looks=2)
    thread.look_s = 0.01
    assert await engine.receives_immediately(coalescer, looks=20) < 1.5


async def test_error_comes_out_as_it_is() -> None:
    async def receive() -> int:
        raise ConnectionError("engine")

    with pytest.raises(ConnectionError, match="engine"):
        await OutputCoalescer(lambda: True, lambda: 1).before(receive)()


@pytest.mark.skipif(not Path("/proc/thread-self/schedstat").exists(), reason="this kernel does not count the wait")
def test_wait_for_a_core_is_that_of_this_thread() -> None:
    found: list[float] = []
    took: list[float] = []

    def compete() -> None:
        core = min(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {core})  # of this thread alone
        wait = CoreWait()
        with subprocess.Popen([sys.executable, "-c", _BUSY, str(core)], stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            other.stdout.readline()
            began, before = time.monotonic(), wait.seconds()
            while time.monotonic() < began + 0.5:
                pass
            found.append(wait.seconds() - before)
            took.append(time.monotonic() - began)
            other.kill()

    thread = threading.Thread(target=compete)
    thread.start()
    thread.join()
    assert 0.05 < found[0] < took[0]


@pytest.mark.parametrize("content", [None, b"", b"not available\n"])
def test_kernel_without_a_count_reports_no_wait(monkeypatch: pytest.MonkeyPatch, content: bytes | None) -> None:
    def opened(*_: object) -> int:
        if content is None:
            raise FileNotFoundError
        return 1

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "pread", lambda *_: content)
    wait = CoreWait()
    assert (wait.seconds(), wait.seconds()) == (0, 0)
