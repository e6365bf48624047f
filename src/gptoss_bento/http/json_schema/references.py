"""Finds what `$ref` points at. Pure."""

from __future__ import annotations

from typing import Any, TypeGuard
from urllib.parse import unquote


def is_local(reference: Any) -> TypeGuard[str]:
    """Whether a `$ref` is a pointer into its own schema."""
    return isinstance(reference, str) and (reference == "#" or reference.startswith("#/"))


def target(root: Any, reference: str) -> Any:
    """What a local `$ref` points at.

    Source: RFC 6901, as the fragment of a URI.

    Raises:
        LookupError: there is no such place in the schema.
    """
    found = root
    for step in steps(reference):
        if isinstance(found, list) and step.isdecimal():
            found = found[int(step)]
        elif isinstance(found, dict):
            found = found[step]
        else:
            raise LookupError(reference)
    return found


def steps(reference: str) -> list[str]:
    """The names along a local `$ref`, unescaped; none for `#`."""
    escaped = unquote(reference.removeprefix("#")).split("/")[1:]
    return [step.replace("~1", "/").replace("~0", "~") for step in escaped]
