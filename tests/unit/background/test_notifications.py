from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gptoss_bento.background.notifications import Notifier
from tests.waiting import until


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("t")


@pytest.fixture
def received() -> list[list[list[str]]]:
    """What each of three workers has received."""
    return [[], [], []]


@pytest.fixture
async def notifiers(folder: Path, received: list[list[list[str]]]) -> AsyncIterator[list[Notifier]]:
    paths = [folder / str(index) for index in range(3)]
    made = [Notifier(own, [path for path in paths if path != own], received[i].append) for i, own in enumerate(paths)]
    with ExitStack() as stack:
        for notifier in made:
            stack.enter_context(notifier.listening())
        yield made


async def test_notification_reaches_all_others(notifiers: list[Notifier], received: list[list[list[str]]]) -> None:
    notifiers[0].publish(["a", "b"])
    notifiers[2].publish(["c"])

    await until(lambda: received == [[["c"]], [["a", "b"], ["c"]], [["a", "b"]]])


async def test_notification_of_nothing_is_not_sent(notifiers: list[Notifier], received: list[list[list[str]]]) -> None:
    notifiers[0].publish([])
    await asyncio.sleep(0.02)

    assert received == [[], [], []]


async def test_notification_skips_a_worker_that_does_not_listen_yet(
    folder: Path, received: list[list[list[str]]]
) -> None:
    notifier = Notifier(folder / "0", [folder / "1"], received[0].append)
    with notifier.listening():
        notifier.publish(["a"])


async def test_notification_to_a_full_socket_does_not_block(notifiers: list[Notifier]) -> None:
    for _ in range(2000):  # more than a socket holds
        notifiers[0].publish(["x" * 100])


async def test_notification_by_a_single_worker_does_nothing() -> None:
    notifier = Notifier(None, [], lambda _: pytest.fail("there is no other worker"))
    with notifier.listening():
        notifier.publish(["a"])
