"""The source of an installed module, for contracts with modules that cannot be imported without a GPU."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def source_of(module: str) -> str:
    spec = find_spec(module)
    assert spec
    assert spec.origin
    return Path(spec.origin).read_text()
