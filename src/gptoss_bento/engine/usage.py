"""How many tokens a request cost, asked once, when it is over: nothing runs per token."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Self

_current: ContextVar[Meter | None] = ContextVar("meter", default=None)


class Meter:
    """Counts what the engine is asked for within its block, and in tasks that begin there: one request, or one job."""

    __slots__ = ("_before", "_generations")
    _before: Token[Meter | None]

    def __init__(self) -> None:
        self._generations: list[Callable[[], int]] = []

    def __enter__(self) -> Self:
        self._before = _current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _current.reset(self._before)

    @property
    def tokens(self) -> int:
        """Tokens of prompts and answers so far."""
        return sum(count() for count in self._generations)

    def add(self, count: Callable[[], int]) -> None:
        """A generation starts; `count` returns its tokens so far, also after its end."""
        self._generations.append(count)


def current_meter() -> Meter | None:
    """The meter of the present request."""
    return _current.get()
