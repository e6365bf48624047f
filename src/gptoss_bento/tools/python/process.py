"""One confined child, as the service sees it: started, sent requests, read, signalled, reaped.

Its pidfd, which no other process can have, is what signals go to; no thread waits for its end.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from gptoss_bento.tools.python import libraries
from gptoss_bento.tools.python.confinement import NICENESS
from gptoss_bento.tools.python.framing import REPLY_BYTES, FrameError, Frames, frame
from gptoss_bento.tools.python.limits import Limits

PIPE_BYTES: Final = 65536
"""What a pipe of Linux holds. The child cannot enlarge it, so one read takes all that it wrote before a reply."""

START_S: Final = 30.0
"""A start takes 0.1 s; on a machine that is short of CPU time, much longer."""

LIFETIME_CPU_S: Final = 3600
"""The kernel's own bound (RLIMIT_CPU), if this process is too busy to watch a child."""

_ROOT: Final = str(Path(__file__).parents[3])
PROGRAM: Final = (
    f"import json, os, sys; os.setpriority(os.PRIO_PROCESS, 0, {NICENESS}); "
    "sys.path.append(json.loads(sys.argv[1])['root']); "
    "from gptoss_bento.tools.python.child import main; main()"
)
_ENVIRONMENT: Final = {
    "LANG": "C.UTF-8",
    "HOME": "/",
    "MPLBACKEND": "Agg",
    "MALLOC_ARENA_MAX": "2",  # each arena reserves 64 MB of address space
    "OPENBLAS_NUM_THREADS": "2",  # its buffers are address space as well
    "OMP_NUM_THREADS": "2",
}


def _ignore() -> None:
    """Where no call runs."""


class StartError(Exception):
    """A child did not start; the text says why."""


class Child:
    """A child process and its three pipes: requests, output, replies. It belongs to one event loop."""

    def __init__(self, process: subprocess.Popen[bytes], requests: int, output: int, replies: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._process = process
        self._requests, self._output, self._replies = requests, output, replies
        self._pidfd = os.pidfd_open(process.pid)
        self._frames = Frames(REPLY_BYTES)
        self._unsent = memoryview(b"")
        self._left = b""
        self._ended = asyncio.Event()
        self._is_killed = False
        self._on_output: Callable[[], None] = _ignore
        self._on_end: Callable[[], None] = _ignore
        self._resting: asyncio.TimerHandle | None = None
        for descriptor in (requests, output, replies):
            os.set_blocking(descriptor, False)
        self._loop.add_reader(self._pidfd, self._reap)

    @property
    def pid(self) -> int:
        """Its process id; that of another process, perhaps, once it `has_ended`."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether it has ended, and been reaped."""
        return self._ended.is_set()

    @property
    def is_usable(self) -> bool:
        """Whether it may be sent code: it has neither ended nor been killed."""
        return not self._is_killed and not self.has_ended

    @property
    def exit_code(self) -> int | None:
        """As subprocess has it: the negative number of the signal that killed it."""
        return self._process.returncode

    async def ended(self) -> None:
        """Waits until it has ended."""
        await self._ended.wait()

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal, unless it has ended."""
        if not self.has_ended:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        """Kills it, also if it is stopped."""
        self._is_killed = True
        self.signal(signal.SIGKILL)

    def send(self, message: dict[str, Any]) -> None:
        """Sends a request, as fast as the child reads it. One that it has not read is replaced."""
        self._unsent = memoryview(frame(message))
        if not self.has_ended:
            self._loop.add_writer(self._requests, self._write)

    def _write(self) -> None:
        try:
            self._unsent = self._unsent[os.write(self._requests, self._unsent) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # it closed its end, or is about to end
            self._unsent = memoryview(b"")
        if not self._unsent:
            self._loop.remove_writer(self._requests)

    def watch(self, on_output: Callable[[], None], on_reply: Callable[[], None], on_end: Callable[[], None]) -> None:
        """Calls back when there is output or a reply to read, and when it has ended; until `unwatch`."""
        self._on_output, self._on_end = on_output, on_end
        if self.has_ended:
            self._loop.call_soon(on_end)
            return
        self._loop.add_reader(self._output, on_output)
        self._loop.add_reader(self._replies, on_reply)

    def unwatch(self) -> None:
        """What it writes waits in its pipes from now on: 64 KiB, then its writes block."""
        self._on_end = _ignore
        if self._resting:
            self._resting.cancel()
        if not self.has_ended:
            self._loop.remove_reader(self._output)
            self._loop.remove_reader(self._replies)

    def rest(self, seconds: float) -> None:
        """Reads no output for a while. Its writes block, once the pipe is full."""
        if not self.has_ended:
            self._loop.remove_reader(self._output)
            self._resting = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        if not self.has_ended:
            self._loop.add_reader(self._output, self._on_output)

    def read_output(self) -> bytes:
        """What is there of its output; after its end, what was left."""
        if self.has_ended:
            left, self._left = self._left, b""
            return left
        with suppress(EOFError):
            return self._read(self._output, PIPE_BYTES)
        return b""

    def read_replies(self) -> list[dict[str, Any]]:
        """The replies that are there.

        Raises:
            FrameError: it wrote something else, or closed the pipe.
        """
        if self.has_ended:
            return []
        try:
            return self._frames.feed(self._read(self._replies, REPLY_BYTES))
        except EOFError:
            raise FrameError("the pipe of replies is closed") from None

    def _read(self, descriptor: int, limit: int) -> bytes:
        """Nothing, if nothing is there.

        Raises:
            EOFError: the child closed the pipe, which is then always ready.
        """
        try:
            data = os.read(descriptor, limit)
        except BlockingIOError:
            return b""
        if not data:
            self._loop.remove_reader(descriptor)
            raise EOFError
        return data

    def start_problem(self) -> str:
        """The last line of what it wrote instead of its first reply: the error of a start, where Python has one."""
        return self._frames.unread.decode(errors="replace").strip().rpartition("\n")[2]

    def _reap(self) -> None:
        self._process.wait()
        with suppress(BlockingIOError):
            self._left = os.read(self._output, PIPE_BYTES)
        with suppress(BlockingIOError, FrameError):
            self._frames.feed(os.read(self._replies, PIPE_BYTES))
        self._loop.remove_writer(self._requests)
        for descriptor in (self._pidfd, self._output, self._replies):
            self._loop.remove_reader(descriptor)
        for descriptor in (self._pidfd, self._requests, self._output, self._replies):
            os.close(descriptor)
        self._ended.set()
        self._on_end()


async def start(limits: Limits, program: str = PROGRAM) -> Child:
    """Starts a child that is confined and waits for code.

    The thread that calls this must last as long as the service: the kernel kills the child when it ends.

    Raises:
        StartError: it could not be started or confined, or not within START_S.
    """
    try:
        child = _spawn(limits, program)
    except OSError as error:
        raise StartError(f"no process could be started: {error}") from error
    greeted = asyncio.Event()
    child.watch(_ignore, greeted.set, greeted.set)
    try:
        async with asyncio.timeout(START_S):
            await greeted.wait()
        await _check_greeting(child)
    except TimeoutError:
        child.kill()
        raise StartError(f"no answer within {START_S:g} s") from None
    except BaseException:
        child.kill()
        raise
    finally:
        child.unwatch()
    return child


async def _check_greeting(child: Child) -> None:
    with suppress(FrameError):
        if child.read_replies():
            return
    with suppress(TimeoutError):  # it writes why, and ends
        async with asyncio.timeout(START_S):
            await child.ended()
    child.kill()
    await child.ended()
    raise StartError(child.start_problem() or f"it ended with {child.exit_code}")


def _spawn(limits: Limits, program: str) -> Child:
    ours: list[int] = []
    theirs: list[int] = []
    try:
        for is_request in (True, False, False):
            reads, writes = os.pipe2(os.O_CLOEXEC)
            theirs.append(reads if is_request else writes)
            ours.append(writes if is_request else reads)
        return Child(_popen(limits, program, *theirs), *ours)
    except BaseException:
        for descriptor in ours:
            os.close(descriptor)
        raise
    finally:
        for descriptor in theirs:
            os.close(descriptor)


def _popen(limits: Limits, program: str, requests: int, output: int, replies: int) -> subprocess.Popen[bytes]:
    """It has no environment of ours, no descriptor but three, and a process group of its own: Ctrl-C is not for it."""
    return subprocess.Popen(  # noqa: S603  # the interpreter that runs this, with our program
        [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", program, json.dumps(_settings(limits))],
        stdin=requests,
        stdout=output,
        stderr=replies,
        env=_ENVIRONMENT,
        cwd="/",
        process_group=0,
    )


def _settings(limits: Limits) -> dict[str, Any]:
    return {
        "root": _ROOT,
        "parent": os.getpid(),
        "packages": libraries.packages(),
        "readable": libraries.readable(),
        "memory_bytes": limits.memory_bytes,
        "cpu_s": LIFETIME_CPU_S,
        "request_bytes": 8 * limits.code_bytes,  # JSON may take six bytes for one
    }
