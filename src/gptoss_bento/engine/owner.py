"""Whose a request is, for what of it must not meet that of another key: a container of Python."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_current: ContextVar[str] = ContextVar("owner", default="")


@contextmanager
def of_owner(owner: str) -> Iterator[None]:
    """What is asked of the engine within the block, and in tasks that begin there, is this owner's."""
    before = _current.set(owner)
    try:
        yield
    finally:
        _current.reset(before)


def current_owner() -> str:
    """The owner of the present request's key; empty on an open server."""
    return _current.get()
