"""Tasks that continue after their request was answered: `background: true` of /v1/responses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextvars import ContextVar, Token
from typing import Any, Self

Task = asyncio.Task[Any]

_current: ContextVar[LeftBehind | None] = ContextVar("background", default=None)


class LeftBehind(list[Task]):
    """The tasks that a request made within its block leaves behind, complete at the end of the block."""

    _before: Token[LeftBehind | None]

    def __enter__(self) -> Self:
        self._before = _current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _current.reset(self._before)


def leave_behind(task: Task) -> None:
    """The present request leaves this task behind: its slot is free once the task has ended."""
    if (of_request := _current.get()) is not None:
        of_request.append(task)


def after(tasks: Collection[Task], then: Callable[[], None]) -> None:
    """Calls `then` once all tasks have ended, however they do: immediately if there is none."""
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
