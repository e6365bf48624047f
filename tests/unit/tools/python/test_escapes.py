"""Attempts to get out: each is refused by the kernel, reaches nothing outside, and leaves a Python that answers."""

from __future__ import annotations

import platform

import pytest

from gptoss_bento.tools.python.containers import Containers
from tests.unit.tools.python.attempts import REFUSED, WITH_ANOTHER_ERROR, attempt
from tests.unit.tools.python.outside import SECRET, Outside

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the attempts have numbers of x86_64")
CONTAINER = "cntr_of_attempts"


@pytest.mark.parametrize("name", REFUSED)
async def test_attempt_is_refused(name: str, containers: Containers, outside: Outside) -> None:
    names = "".join(f"{key} = {value!r}\n" for key, value in outside.names.items())

    ran = await containers.run(CONTAINER, names + attempt(REFUSED[name]))

    assert "refused" in ran.text
    assert "PermissionError" in ran.text or name in WITH_ANOTHER_ERROR
    assert "ESCAPED" not in ran.text
    assert SECRET not in ran.text
    assert outside.problems() == []
    assert (await containers.run(CONTAINER, "1 + 1")).text == "2"


def test_attempts_are_at_least_sixty() -> None:
    assert len(REFUSED) >= 60
