"""Folders that a child may read: libraries, and nothing above them."""

from __future__ import annotations

import os
from pathlib import Path

from gptoss_bento.tools.python import libraries
from tests.server import REPOSITORY


def test_readable_are_the_folders_of_the_interpreter_and_its_packages() -> None:
    readable = libraries.readable()

    assert str(Path(os.__file__).parent) in readable
    assert set(libraries.packages()) <= set(readable)


def test_readable_has_no_folder_of_users_or_of_the_service() -> None:
    forbidden = {"/", "/etc", "/home", "/root", "/tmp", "/usr", "/lib", "/usr/lib", "/proc", "/run", str(REPOSITORY)}  # noqa: S108

    assert not forbidden & set(libraries.readable())
    assert all(not str(REPOSITORY / "src").startswith(path) for path in libraries.readable())
