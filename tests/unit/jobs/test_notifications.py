from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gptoss_bento.jobs.notifications import Bell


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("t")


@pytest.fixture
def heard() -> list[list[list[str]]]:
    """What each of three workers has heard."""
    return [[], [], []]


@pytest.fixture
async def bells(folder: Path, heard: list[list[list[str]]]) -> AsyncIterator[list[Bell]]:
    paths = [folder / str(index) for index in range(3)]
    made = [Bell(own, [path for path in paths if path != own], heard[i].append) for i, own in enumerate(paths)]
    with ExitStack() as stack:
        for bell in made:
            stack.enter_context(bell.listening())
        yield made


async def test_all_others_hear_it(bells: list[Bell], heard: list[list[list[str]]]) -> None:
    bells[0].ring(["a", "b"])
    bells[2].ring(["c"])
    await asyncio.sleep(0.02)

    assert heard == [[["c"]], [["a", "b"], ["c"]], [["a", "b"]]]


async def test_nothing_is_not_rung(bells: list[Bell], heard: list[list[list[str]]]) -> None:
    bells[0].ring([])
    await asyncio.sleep(0.02)

    assert heard == [[], [], []]


async def test_one_that_does_not_listen_yet_is_left_out(folder: Path, heard: list[list[list[str]]]) -> None:
    bell = Bell(folder / "0", [folder / "1"], heard[0].append)
    with bell.listening():
        bell.ring(["a"])


async def test_one_that_does_not_read_holds_up_nobody(bells: list[Bell]) -> None:
    for _ in range(2000):  # more than a socket holds
        bells[0].ring(["x" * 100])


async def test_a_single_worker_neither_rings_nor_hears() -> None:
    bell = Bell(None, [], lambda _: pytest.fail("nobody is there"))
    with bell.listening():
        bell.ring(["a"])
