"""What goes on after its request was answered, `background: true` of /v1/responses: known to whom the request asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

Task = asyncio.Task[Any]

_current: ContextVar[list[Task] | None] = ContextVar("background", default=None)


class BackgroundTasks(dict[str, Task]):
    """Stands in for vLLM's `background_tasks`, where a request puts the task that it leaves behind."""

    def __setitem__(self, name: str, task: Task) -> None:
        super().__setitem__(name, task)
        if (of_request := _current.get()) is not None:
            of_request.append(task)


@contextmanager
def left_behind() -> Iterator[list[Task]]:
    """The tasks that a request made within leaves behind, complete at the end of the block."""
    tasks: list[Task] = []
    token = _current.set(tasks)
    try:
        yield tasks
    finally:
        _current.reset(token)


def after(tasks: Collection[Task], then: Callable[[], None]) -> None:
    """Calls `then` once all tasks have ended, however they do: at once if there is none."""
    running = {task for task in tasks if not task.done()}
    if not running:
        then()
        return

    def ended(task: Task) -> None:
        running.discard(task)
        if not running:
            then()

    for task in tuple(running):
        task.add_done_callback(ended)
