"""Cells that take what they can or break their process: each ends, says why, and leaves a Python that answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from gptoss_bento.tools.python import confinement
from gptoss_bento.tools.python.containers import Containers, Limits
from tests.unit.tools.python.exhaustion import KEPT, LOST
from tests.unit.tools.python.outside import Outside
from tests.waiting import HANG_S

LIMITS = Limits(
    memory_bytes=256 * 2**20, output_bytes=4096, flood_bytes=256 * 2**10, threads=40, containers=2, timeout_s=HANG_S
)
SHORT_S = 0.3
"""For what would never end. All else has as much time as a hang."""


class Limited:
    """Containers with the times that an attempt needs."""

    def __init__(self) -> None:
        self._made: dict[Limits, Containers] = {}

    def __call__(self, shown: str, is_lost: bool) -> Containers:
        is_endless = "longer than" in shown
        never_ends = is_lost and (is_endless or "connection" in shown)
        limits = replace(LIMITS, timeout_s=SHORT_S if is_endless else HANG_S, grace_s=SHORT_S if never_ends else HANG_S)
        return self._made.setdefault(limits, Containers(limits))

    async def close(self) -> None:
        for containers in self._made.values():
            await containers.close()


@pytest.fixture(scope="module")
async def limited() -> AsyncIterator[Limited]:
    if problem := confinement.problem():
        pytest.skip(f"this machine cannot confine: {problem}")
    made = Limited()
    yield made
    await made.close()


async def answer(containers: Containers, container: str, code: str) -> str:
    """Of a cell that takes no time; again, if the machine is so busy that it took too long."""
    while "longer than" in (text := (await containers.run(container, code)).text):
        pass
    return text


@pytest.mark.parametrize("name", LOST)
async def test_process_that_ends_is_replaced(name: str, limited: Limited, outside: Outside) -> None:
    code, cause = LOST[name]
    containers = limited(cause, is_lost=True)
    container = containers.new_id()
    await answer(containers, container, "kept = 7")

    ran = await containers.run(container, code)

    assert ran.failed
    assert cause in ran.text
    assert "variables are lost" in ran.text
    assert len(ran.text) < 3 * LIMITS.output_bytes
    assert outside.problems() == []
    again = await answer(containers, container, "'kept' in globals()")
    assert again.startswith("[Python was restarted")
    assert again.endswith("False")


@pytest.mark.parametrize("name", KEPT)
async def test_process_that_goes_on_keeps_its_variables(name: str, limited: Limited, outside: Outside) -> None:
    code, shown = KEPT[name]
    containers = limited(shown, is_lost=False)
    container = containers.new_id()
    await answer(containers, container, "kept = 7")

    ran = await containers.run(container, code)

    assert shown in ran.text
    assert len(ran.text) < 3 * LIMITS.output_bytes
    assert outside.problems() == []
    assert (await answer(containers, container, "x = None\nprint()\nkept")).endswith("7")
