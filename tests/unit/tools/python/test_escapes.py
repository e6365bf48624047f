"""Attempts to get out: each is refused by the kernel, reaches nothing outside, and leaves a Python that answers."""

from __future__ import annotations

import platform

import pytest

from gptoss_bento.tools.python import confinement
from gptoss_bento.tools.python.containers import Containers, Limits
from gptoss_bento.tools.python.process import start
from tests.unit.tools.python.attempts import REFUSED, WITH_ANOTHER_ERROR, attempt
from tests.unit.tools.python.outside import SECRET, Outside
from tests.waiting import HANG_S

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


OLDER = """
import json, sys
sys.path.append(json.loads(sys.argv[1])["root"])
from gptoss_bento.tools.python import child, landlock
landlock.version = lambda: {abi}
child.main()
"""


@pytest.mark.parametrize("abi", [1, 2, 3, 4, 5])
async def test_attempts_are_refused_with_an_older_landlock(abi: int, outside: Outside) -> None:
    """Kernels from 5.13 on: without truncation, TCP, devices or scopes, for which the other layer is there."""
    if problem := confinement.problem():
        pytest.skip(f"this machine cannot confine: {problem}")
    older = Containers(Limits(timeout_s=HANG_S), lambda limits: start(limits, OLDER.format(abi=abi)))
    names = "".join(f"{key} = {value!r}\n" for key, value in outside.names.items())
    container = older.new_id()

    shown = {name: (await older.run(container, names + attempt(code))).text for name, code in REFUSED.items()}

    await older.close()
    assert [name for name, text in shown.items() if "refused" not in text or "ESCAPED" in text or SECRET in text] == []
    assert outside.problems() == []
