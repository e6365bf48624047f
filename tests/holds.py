"""What a test holds back in a service without vLLM (tests/engineless_service.py), until it releases it.

So a test decides when the engine has loaded and when an answer goes on, and no time does.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from tests.server import ServedProcess, serve

ANSWERS = "answers"
"""While it is held, each answer stays at its first token."""

LOADING = "loading"
"""While it is held, the engine loads."""

CAUSE_SHOWN_S = "TEST_CAUSE_SHOWN_S"
"""Variable: how many seconds a service answers whose engine died. Its own second may be too short for a test."""

WORDS = "TEST_WORDS"
"""Variable: how many words the answer of a response has, one after the other."""

ENDS = "TEST_ENDS"
"""Variable: a file that gets the id of each response that is generated to its end, a line each."""

_FOLDER = "TEST_HOLDS"
_SERVICE = "tests.engineless_service:GptOss"
_POLL_INTERVAL_S = 0.01


def serve_without_vllm(
    folder: Path, variables: Mapping[str, str] | None = None, holds: Sequence[str] = ()
) -> AbstractContextManager[ServedProcess]:
    """The service on the fake engine, which is ready in seconds.

    Args:
        folder: for its log, its jobs, and a file for each thing that is held.
        variables: what it gets beside this process's own.
        holds: what is held from the start.
    """
    held = held_by(folder, *holds)
    return serve(folder, {"PROFILE": "demo", **held, **(variables or {})}, service=_SERVICE)


def held_by(folder: Path, *names: str) -> dict[str, str]:
    """Holds these from now on; the variables with which a service keeps to it."""
    for name in names:
        _file(folder, name).touch()
    return {_FOLDER: str(folder)}


def release(folder: Path, name: str) -> None:
    """What was held goes on."""
    _file(folder, name).unlink()


async def released(name: str) -> None:
    """Called in the service: waits while the test holds this."""
    folder = os.environ.get(_FOLDER)
    while folder and _file(Path(folder), name).exists():  # noqa: ASYNC110  # another process says so
        await asyncio.sleep(_POLL_INTERVAL_S)


def note_end(response_id: str) -> None:
    """Called in the service: a response has been generated to its end. It may be lost before that is stored."""
    if name := os.environ.get(ENDS):
        with Path(name).open("a") as file:
            file.write(f"{response_id}\n")


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.held"
