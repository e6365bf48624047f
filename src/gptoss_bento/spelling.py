"""The nearest known name to a mistyped one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, names: Iterable[str], likeness: float = 0.6) -> str | None:
    """The known name most like this one, or None if none is like it; `likeness` is difflib's, from 0 to 1."""
    return next(iter(get_close_matches(name, list(names), n=1, cutoff=likeness)), None)
