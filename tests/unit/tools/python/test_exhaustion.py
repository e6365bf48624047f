"""Cells that take what they can or break their process: each ends, says why, and leaves a Python that answers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gptoss_bento.tools.python import confinement
from gptoss_bento.tools.python.containers import Containers, Limits
from tests.unit.tools.python.exhaustion import KEPT, LOST
from tests.unit.tools.python.outside import Outside

LIMITS = Limits(
    timeout_s=0.5, memory_bytes=256 * 2**20, output_bytes=4096, flood_bytes=256 * 2**10, threads=40, containers=2
)


@pytest.fixture(scope="module")
async def limited() -> AsyncIterator[Containers]:
    if problem := confinement.problem():
        pytest.skip(f"this machine cannot confine: {problem}")
    containers = Containers(LIMITS)
    yield containers
    await containers.close()


async def answer(containers: Containers, container: str, code: str) -> str:
    """Of a cell that takes no time; again, if the machine is so busy that it took too long."""
    while "longer than" in (text := (await containers.run(container, code)).text):
        pass
    return text


@pytest.mark.parametrize("name", LOST)
async def test_process_that_ends_is_replaced(name: str, limited: Containers, outside: Outside) -> None:
    container, (code, cause) = limited.new_id(), LOST[name]
    await answer(limited, container, "kept = 7")

    ran = await limited.run(container, code)

    assert ran.failed
    assert cause in ran.text
    assert "variables are lost" in ran.text
    assert len(ran.text) < 3 * LIMITS.output_bytes
    assert outside.problems() == []
    again = await answer(limited, container, "'kept' in globals()")
    assert again.startswith("[Python was restarted")
    assert again.endswith("False")


@pytest.mark.parametrize("name", KEPT)
async def test_process_that_goes_on_keeps_its_variables(name: str, limited: Containers, outside: Outside) -> None:
    container, (code, shown) = limited.new_id(), KEPT[name]
    await answer(limited, container, "kept = 7")

    ran = await limited.run(container, code)

    assert shown in ran.text
    assert len(ran.text) < 3 * LIMITS.output_bytes
    assert outside.problems() == []
    assert (await answer(limited, container, "x = None\nprint()\nkept")).endswith("7")
