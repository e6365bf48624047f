"""How many tokens a request cost, asked once, when it is over: nothing runs per token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_current: ContextVar[Meter | None] = ContextVar("meter", default=None)


class Meter:
    """Counts what the engine does for one request, or for one job."""

    def __init__(self) -> None:
        self._generations: list[Callable[[], int]] = []

    @property
    def tokens(self) -> int:
        """Tokens of prompts and answers so far."""
        return sum(count() for count in self._generations)

    def add(self, count: Callable[[], int]) -> None:
        """The engine begins a generation; `count` tells its tokens so far, also after its end."""
        self._generations.append(count)


@contextmanager
def metered() -> Iterator[Meter]:
    """What the engine is asked for within, and in tasks that begin within, is counted."""
    meter = Meter()
    token = _current.set(meter)
    try:
        yield meter
    finally:
        _current.reset(token)


def current_meter() -> Meter | None:
    """Who counts what is asked for here."""
    return _current.get()
