"""What confines is needed: Landlock and seccomp of the machine that runs the tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from gptoss_bento.tools.python import confinement
from gptoss_bento.tools.python.containers import Containers, Limits
from tests.unit.tools.python.outside import Outside, outside_of
from tests.waiting import HANG_S


@pytest.fixture(scope="package")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    with outside_of(tmp_path_factory.mktemp("outside")) as made:
        yield made


@pytest.fixture(scope="package")
async def containers() -> AsyncIterator[Containers]:
    """Shared: a child starts in 0.1 s."""
    if problem := confinement.problem():
        pytest.skip(f"this machine cannot confine: {problem}")
    shared = Containers(Limits(timeout_s=HANG_S, memory_bytes=400 * 2**20))
    yield shared
    await shared.close()
