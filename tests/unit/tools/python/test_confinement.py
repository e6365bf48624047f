"""Whether a machine can confine, and why not. What is confined: test_escapes.py."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from gptoss_bento.tools.python import confinement, landlock


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.EOPNOTSUPP, "lsm="), (errno.ENOSYS, "Linux 5.13"), (errno.EPERM, "seccomp profile")],
)
def test_problem_says_why_there_is_no_landlock(number: int, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def version() -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(landlock, "version", version)

    assert reason in (confinement.problem() or "")


def test_problem_names_a_system_that_is_not_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")

    assert confinement.problem() == "darwin has no Landlock: Linux 5.13 or newer is needed"


def test_problem_names_an_architecture_without_a_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    uname = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*uname[:4], "riscv64")))

    assert "riscv64, only for x86_64 and aarch64" in (confinement.problem() or "")


def test_question_changes_nothing() -> None:
    before = confined()

    confinement.problem()

    assert confined() == before


def confined() -> list[str]:
    """What the kernel says of this process's confinement."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return [line for line in lines if line.startswith(("NoNewPrivs", "Seccomp", "Cap"))]
