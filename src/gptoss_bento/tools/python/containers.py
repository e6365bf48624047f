"""The containers of one worker: a confined child for each, started when it is needed, ended when it is not."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from gptoss_bento.tools.python import confinement
from gptoss_bento.tools.python.limits import Limits
from gptoss_bento.tools.python.process import Child, StartError, start
from gptoss_bento.tools.python.turn import Ran, Turn

__all__ = ["Containers", "Limits", "Ran"]

_RESTARTED: Final = "[Python was restarted: variables of earlier calls are lost.]\n"
_NOT_STARTED: Final = "[Python could not be started. The log of the service says why.]"
_OF: Final = "/"  # in no id
_NEW_REMEMBERED: Final = 4096
"""Ids that were made and not used. A call with another id continues what this process has not, or no longer."""

logger = logging.getLogger(__name__)


class _Container:
    def __init__(self) -> None:
        self.child: Child | None = None
        self.calls = asyncio.Lock()
        self.waiting = 0
        self.is_running = False
        self.runs = 0
        self.idle: asyncio.TimerHandle | None = None

    @property
    def is_alive(self) -> bool:
        return self.child is not None and self.child.is_usable


class Containers:
    """All containers of this process. It belongs to one event loop, in a thread that lasts as long as the process.

    Args:
        limits: of each, and of all.
        start_child: starts one.
    """

    def __init__(self, limits: Limits | None = None, start_child: Callable[[Limits], Awaitable[Child]] = start) -> None:
        self._limits = limits or Limits()
        self._start = start_child
        self._containers: OrderedDict[str, _Container] = OrderedDict()  # the longest unused first
        self._new: OrderedDict[str, None] = OrderedDict()  # the oldest first
        self._free = asyncio.Semaphore(self._limits.containers)

    def new_id(self) -> str:
        """The id of a container that does not exist yet; 122 random bits."""
        container_id = f"cntr_{uuid.uuid4().hex}"
        self._new[container_id] = None
        if len(self._new) > _NEW_REMEMBERED:
            self._new.popitem(last=False)
        return container_id

    async def run(self, container_id: str, code: str, owner: str = "") -> Ran:
        """Runs code in a container, which is started if there is none of this id. Calls of one container wait in turn.

        Two owners never share a container, though they name the same id: clients choose ids, and may choose bad ones.

        Where variables of earlier calls are lost, as a container ended or is in another worker, the text says so.
        What goes wrong is text for the model. If the awaiting task is cancelled, the child is killed.
        """
        if len(code.encode(errors="replace")) > self._limits.code_bytes:
            return Ran(f"[The code is longer than {self._limits.code_bytes} bytes.]", failed=True)
        name = f"{owner}{_OF}{container_id}" if owner else container_id
        async with self._used(name) as container:
            try:
                async with asyncio.timeout(self._limits.timeout_s) as wait, container.calls, self._free:
                    wait.reschedule(None)
                    return await self._run(name, container, code)
            except TimeoutError:
                return Ran(f"[No Python was free within {self._limits.timeout_s:g} s. Try again.]", failed=True)

    async def problem(self) -> str | None:
        """Why no Python can be run here; None if one was started, confined, and ended."""
        if reason := confinement.problem():
            return reason
        try:
            child = await self._start(self._limits)
        except StartError as error:
            return str(error)
        child.kill()
        await child.ended()
        return None

    async def end(self, container_id: str) -> None:
        """Ends a container, and a call that runs in it."""
        if container := self._containers.get(container_id):
            await self._end(container_id, container)

    async def close(self) -> None:
        """Ends all."""
        for container_id, container in list(self._containers.items()):
            await self._end(container_id, container)

    @asynccontextmanager
    async def _used(self, container_id: str) -> AsyncIterator[_Container]:
        container = self._containers.setdefault(container_id, _Container())
        self._containers.move_to_end(container_id)
        container.waiting += 1
        if container.idle:
            container.idle.cancel()
        try:
            yield container
        finally:
            container.waiting -= 1
            if not container.waiting:
                self._rest(container_id, container)

    def _rest(self, container_id: str, container: _Container) -> None:
        if container.is_alive:
            loop = asyncio.get_running_loop()
            container.idle = loop.call_later(self._limits.idle_s, self._forget, container_id, container)
        else:
            self._forget(container_id, container)

    def _forget(self, container_id: str, container: _Container) -> None:
        """Kills its child, if it has one; the kernel ends it, and the loop reaps it."""
        if container.child:
            container.child.kill()
        if self._containers.get(container_id) is container and not container.waiting:
            del self._containers[container_id]

    async def _end(self, container_id: str, container: _Container) -> None:
        if container.idle:
            container.idle.cancel()
        self._forget(container_id, container)
        if container.child:
            await container.child.ended()

    async def _run(self, container_id: str, container: _Container, code: str) -> Ran:
        container.is_running = True
        try:
            child, note = await self._child_of(container_id, container)
            container.runs += 1
            ran = await Turn(child, self._limits, container.runs).run(code)
        except StartError as error:
            logger.warning("Python for the model could not be started: %s", error)
            return Ran(_NOT_STARTED, failed=True)
        finally:
            container.is_running = False
        return Ran(note + ran.text, ran.failed)

    async def _child_of(self, container_id: str, container: _Container) -> tuple[Child, str]:
        """Its child, and what the model must know of it."""
        if container.child and container.is_alive:
            return container.child, ""
        await self._make_room()
        container.child = await self._start(self._limits)
        is_new = self._new.pop(container_id.rpartition(_OF)[2], container) is None
        return container.child, "" if is_new else _RESTARTED

    async def _make_room(self) -> None:
        """Ends the longest unused children that run nothing, until another one may be started.

        Those that run are fewer than the limit, because the caller has a slot of it.
        """
        alive = [(name, container) for name, container in self._containers.items() if container.is_alive]
        idle = [(name, container) for name, container in alive if not container.is_running]
        running = sum(container.is_running for container in self._containers.values())
        excess = running + len(idle) - self._limits.containers
        for name, container in idle[: max(excess, 0)]:
            await self._end(name, container)
