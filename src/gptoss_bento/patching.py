"""What this service replaces in other libraries at run time, as records: each package lists its own in `patches.py`.

The libraries have no setting for it. Each record says what is replaced, why, what would do instead, and which
contract test fails when the library changes; docs/upgrading.md is the same table for people.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Patch:
    """One function, class or attribute of a library that is replaced.

    Attributes:
        target: `module:attribute`, as entry points are written. For what is replaced on one object, its class's.
        reason: what the library does without it.
        instead: the public option, plugin or subclass that would do, or why there is none.
        test: the contract test that fails when the target changes, or when the library no longer needs it.
        only_with: the extra of this package whose library has the target; empty: it is always installed.
    """

    target: str
    reason: str
    instead: str
    test: str
    only_with: str = ""

    @property
    def name(self) -> str:
        """The attribute that is replaced."""
        return self.target.rpartition(":")[2].rpartition(".")[2]

    def original(self) -> Any:
        """The target's present value.

        Raises:
            ImportError: there is no such module.
            AttributeError: it has no such attribute.
        """
        return pkgutil.resolve_name(self.target)

    def replace(self, replacement: object) -> None:
        """Sets the target, for all callers from now on."""
        module, _, path = self.target.partition(":")
        owner, _, name = path.rpartition(".")
        setattr(pkgutil.resolve_name(f"{module}:{owner}"), name, replacement)

    def wrap(self, wrapper: Callable[[Any], object]) -> None:
        """Replaces the target by what `wrapper` makes of it."""
        self.replace(wrapper(self.original()))

    @contextmanager
    def replaced(self, replacement: object) -> Iterator[None]:
        """Replaces the target until the end of the block."""
        original = self.original()
        self.replace(replacement)
        try:
            yield
        finally:
            self.replace(original)

    def replace_on(self, instance: object, replacement: object) -> None:
        """Sets the attribute on one object alone."""
        setattr(instance, self.name, replacement)

    def wrap_on(self, instance: object, wrapper: Callable[[Any], object]) -> None:
        """Replaces the attribute of one object by what `wrapper` makes of it."""
        self.replace_on(instance, wrapper(getattr(instance, self.name)))


@dataclass(frozen=True)
class PrivateUse:
    """Something of a library that is no public interface, and is used as it is.

    Attributes:
        target: as of `Patch`.
        how: `read`, `called`, `set` (a value, not code) or `overridden` (in a subclass).
        reason: what for.
        test: as of `Patch`.
        only_with: as of `Patch`.
    """

    target: str
    how: str
    reason: str
    test: str
    only_with: str = ""
