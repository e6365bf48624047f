"""Records of the engine's processes: files of JSON lines, to which several append and which the API server reads."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


def append(path: Path, said: Mapping[str, Any]) -> None:
    """Adds a line. What cannot be written is lost: a full disk must not end the recorded step or start."""
    line = json.dumps(said) + "\n"
    # One write of a short line to a file opened for appending: lines of several processes do not mix.
    with suppress(OSError):
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)


def parsed(lines: bytes) -> Iterator[dict[str, Any]]:
    """What the lines say. One of which a full disk kept only a part, with the next one right behind it, is left out."""
    for line in lines.splitlines():
        with suppress(ValueError):
            yield json.loads(line)
