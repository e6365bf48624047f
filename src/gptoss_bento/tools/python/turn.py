"""One call of Python: code goes to a child, which is watched until it replies, and interrupted or killed if it must be.

Between two calls a child is stopped, so that threads that a call left behind take no CPU time.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Final

from gptoss_bento.tools.python.framing import FrameError
from gptoss_bento.tools.python.limits import Limits
from gptoss_bento.tools.python.output import Output
from gptoss_bento.tools.python.process import Child
from gptoss_bento.tools.python.usage import Usage, usage

WATCH_INTERVAL_S: Final = 0.05

FLOOD_REST_S: Final = 0.005
"""Between two reads of 64 KiB once the model has enough output: a flood takes 1 % of the event loop, not all of it."""

SLOW_AFTER_S: Final = 0.1
"""CPU time of a call after which its process gets the lowest priority, for the rest of its life: none can raise it."""

_LOWEST_PRIORITY: Final = 19
_PAGE_TABLES: Final = 17 / 16  # they come on top of the address space, and are 1/512 of it unless a program wastes them
_NOTHING_SHOWN: Final = "[No output. What is printed is shown, and the value of the last line if it is an expression.]"


class Ending(Enum):
    """Why a call came to its end."""

    REPLIED = "replied"
    PROCESS_ENDED = "process ended"
    NO_REPLY = "wrote what is no reply"
    TIME = "time"
    CPU = "CPU time"
    OUTPUT = "output"
    MEMORY = "memory"
    THREADS = "threads"


_INTERRUPTED: Final = {Ending.TIME, Ending.CPU, Ending.OUTPUT}
"""SIGINT may help; variables are kept, if it does."""
_FINAL: Final = {Ending.REPLIED, Ending.PROCESS_ENDED, Ending.NO_REPLY}


@dataclass(frozen=True)
class Ran:
    """What the model reads of its call, and whether the call failed: raised, was interrupted, or its process ended."""

    text: str
    failed: bool


class Turn:
    """One call, from the request to its end.

    Args:
        number: distinguishes its reply from those of other calls, which may come late.
    """

    def __init__(self, child: Child, limits: Limits, number: int) -> None:
        self._child = child
        self._limits = limits
        self._number = number
        self._output = Output(limits.output_bytes)
        self._endings: asyncio.Queue[Ending] = asyncio.Queue()
        self._failed = False

    async def run(self, code: str) -> Ran:
        """Runs it. A cancellation kills the child."""
        watcher = asyncio.create_task(self._watch())
        self._child.watch(self._read_output, self._read_reply, lambda: self._endings.put_nowait(Ending.PROCESS_ENDED))
        self._child.signal(signal.SIGCONT)
        self._child.send({"run": self._number, "code": code})
        try:
            return await self._end(await self._endings.get())
        except BaseException:
            self._child.kill()
            raise
        finally:
            watcher.cancel()
            self._child.unwatch()

    async def _end(self, ending: Ending) -> Ran:
        final = await self._interrupted() if ending in _INTERRUPTED else ending
        if final is Ending.NO_REPLY and await self._ends_by_itself():
            ending = Ending.PROCESS_ENDED
        if final is Ending.REPLIED:
            self._child.signal(signal.SIGSTOP)
        else:
            self._child.kill()
            await self._child.ended()
        self._output.add(self._child.read_output())
        note = self._note(ending, is_kept=final is Ending.REPLIED)
        text = "\n".join(part for part in (self._output.text().rstrip("\n"), note) if part)
        return Ran(text or _NOTHING_SHOWN, failed=bool(note) or self._failed)

    async def _interrupted(self) -> Ending | None:
        self._child.signal(signal.SIGINT)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.grace_s):
                while (ending := await self._endings.get()) not in _FINAL:
                    pass
                return ending
        return None

    async def _ends_by_itself(self) -> bool:
        """Whether its pipe was closed because the process ends, which is seen a little later."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.grace_s):
                await self._child.ended()
        return self._child.has_ended

    def _read_output(self) -> None:
        self._output.add(self._child.read_output())
        if self._output.received > self._limits.flood_bytes:
            self._endings.put_nowait(Ending.OUTPUT)
        if self._output.received > self._limits.output_bytes:
            self._child.rest(FLOOD_REST_S)

    def _read_reply(self) -> None:
        try:
            replies = self._child.read_replies()
        except FrameError:
            self._endings.put_nowait(Ending.NO_REPLY)
            return
        for reply in replies[:1]:  # there is one, unless a cell wrote some itself
            is_ours = reply.get("run") == self._number
            self._failed = reply.get("failed") is not False
            self._endings.put_nowait(Ending.REPLIED if is_ours else Ending.NO_REPLY)

    async def _watch(self) -> None:
        """Looks at the child again and again, until something is too much."""
        deadline = time.monotonic() + self._limits.timeout_s
        before_s = usage(self._child.pid).cpu_s
        is_slowed = False
        while (left_s := deadline - time.monotonic()) > 0:
            await asyncio.sleep(min(WATCH_INTERVAL_S, left_s))
            if self._child.has_ended:
                return
            now = usage(self._child.pid)
            cpu_s = now.cpu_s - before_s
            if not now.has_main_thread:  # its memory is not seen any more
                self._child.kill()
                return
            if excess := self._excess(now, cpu_s):
                self._endings.put_nowait(excess)
                return
            if cpu_s > SLOW_AFTER_S and not is_slowed:
                _slow_down(self._child.pid)
                is_slowed = True
        self._endings.put_nowait(Ending.TIME)

    def _excess(self, used: Usage, cpu_s: float) -> Ending | None:
        if used.memory_bytes > self._limits.memory_bytes * _PAGE_TABLES:
            return Ending.MEMORY
        if used.threads > self._limits.threads:
            return Ending.THREADS
        return Ending.CPU if cpu_s > self._limits.cpu_s else None

    def _note(self, ending: Ending, is_kept: bool) -> str:
        if ending is Ending.REPLIED:
            return ""
        limits = self._limits
        cause = {
            Ending.TIME: f"The call took longer than {limits.timeout_s:g} s",
            Ending.CPU: f"The call took more than {limits.cpu_s:g} s of CPU time",
            Ending.OUTPUT: f"The call wrote more than {limits.flood_bytes} bytes",
            Ending.MEMORY: f"Python used more than {limits.memory_bytes // 2**20} MiB of memory",
            Ending.THREADS: f"Python started more than {limits.threads} threads",
            Ending.NO_REPLY: "Python closed its connection to the service",
            Ending.PROCESS_ENDED: f"Python ended: {_exit_cause(self._child.exit_code)}",
        }[ending]
        kept = (
            "It was interrupted. Variables are kept."
            if is_kept
            else "Its variables are lost; the next call starts again without them."
        )
        return f"[{cause}. {kept}]"


def _slow_down(pid: int) -> None:
    with suppress(OSError):
        os.setpriority(os.PRIO_PGRP, pid, _LOWEST_PRIORITY)  # of all its threads; PRIO_PROCESS is one thread


def _exit_cause(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"
