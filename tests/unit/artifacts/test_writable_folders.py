from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gptoss_bento.artifacts.writable_folders import obstacle, refusal

OPENSHIFT = 1000910000  # a uid as that platform chooses them, in group 0

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def as_user(uid: int, gid: int, work: Callable[[], str | None]) -> str:
    """What `work` returns under another user, in a process of its own."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
        os.write(writing, str(work()).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as told:
        return told.read()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One of another user, in a place where all may look."""
    for each in (tmp_path, *tmp_path.parents[:-1]):
        if Path(tempfile.gettempdir()) in each.parents:
            each.chmod(0o755)
    made = tmp_path / "cache"
    made.mkdir()
    os.chown(made, 1034, 1034)
    made.chmod(0o755)
    return made


def test_folder_of_ones_own_is_no_obstacle(tmp_path: Path) -> None:
    assert obstacle(tmp_path) is None
    assert obstacle(tmp_path / "new" / "deep") is None


@as_root
def test_folder_of_another_user_is_named_with_owner_and_uid(folder: Path) -> None:
    told = as_user(OPENSHIFT, 0, lambda: obstacle(folder))

    assert told == (
        f"{folder} cannot be written by uid {OPENSHIFT} (gid 0): it belongs to uid 1034, gid 1034, mode 755"
    )


@as_root
def test_file_that_would_be_made_there_is_named_too(folder: Path) -> None:
    told = as_user(OPENSHIFT, 0, lambda: obstacle(folder / "jobs" / "demo.sqlite3"))

    assert told.endswith(f"; {folder}/jobs/demo.sqlite3 would be made there")


@as_root
def test_folder_of_group_0_that_is_group_writable_is_no_obstacle_for_any_uid_in_it(folder: Path) -> None:
    os.chown(folder, 1034, 0)
    folder.chmod(0o775)

    assert as_user(OPENSHIFT, 0, lambda: obstacle(folder / "jobs")) == "None"
    assert as_user(OPENSHIFT, 4711, lambda: obstacle(folder / "jobs")) != "None"


@as_root
def test_file_of_another_user_is_an_obstacle(folder: Path) -> None:
    file = folder / "demo.sqlite3"
    file.touch(0o644)

    assert as_user(OPENSHIFT, 0, lambda: obstacle(file)).startswith(f"{file} cannot be written by uid {OPENSHIFT}")


def test_permission_error_is_reported_with_owner_and_uid_and_what_helps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(os, "geteuid", lambda: OPENSHIFT)

    reported = refusal(PermissionError(13, "Permission denied", str(tmp_path)))

    assert reported.startswith(f"{tmp_path} cannot be written by uid {OPENSHIFT} (gid {os.getegid()}): it belongs to")
    assert reported.endswith("(chgrp -R 0, chmod -R g=u), or name another folder.")


def test_permission_error_of_something_else_is_reported_with_the_uid(tmp_path: Path) -> None:
    user = f"uid {os.geteuid()} (gid {os.getegid()})"

    assert refusal(PermissionError(13, "x", str(tmp_path))).startswith(f"{tmp_path} may not be used by {user}. ")
    assert refusal(PermissionError(1, "Operation not permitted")).startswith(
        f"[Errno 1] Operation not permitted may not be used by {user}. "
    )
