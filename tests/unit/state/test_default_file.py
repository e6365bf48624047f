"""Which file of jobs a service has. flock counts descriptors, so two services may be of one process here."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from gptoss_bento.errors import ConfigurationError
from gptoss_bento.state.default_file import DefaultFile, Owner, claim, first_file, look

A, B, C = Owner("a", 3000), Owner("b", 3001), Owner("c", 3002)


@contextmanager
def running(first: Path, owner: Owner) -> Iterator[DefaultFile]:
    found = claim(first, owner)
    try:
        yield found
    finally:
        found.release()


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return first_file(tmp_path / "jobs", "demo", None)


def test_file_is_one_for_each_profile_and_model(tmp_path: Path) -> None:
    assert first_file(tmp_path, "demo", None).name == "demo.sqlite3"
    assert first_file(tmp_path, "/configs/own.yaml", "openai/gpt-oss-20b").name == "own-openai-gpt-oss-20b.sqlite3"


def test_first_service_takes_the_file_that_older_versions_left(first: Path) -> None:
    first.parent.mkdir()
    first.touch()
    with running(first, A) as found:
        assert found.path == first
        assert found.is_usual


def test_second_service_has_its_own_file_and_says_so(first: Path) -> None:
    with running(first, A), running(first, B) as second, running(first, C) as third:
        assert second.path.name == "demo+2.sqlite3"
        assert not second.is_usual
        assert second.origin == (
            "demo.sqlite3 is in use by the service on port 3000; only JOB_STORE_URL makes services share a queue"
        )
        assert third.path.name == "demo+3.sqlite3"
        assert [path.name for path, _ in third.in_use] == ["demo.sqlite3", "demo+2.sqlite3"]


def test_workers_of_one_service_share_its_file(first: Path) -> None:
    with running(first, A), running(first, B) as one, running(first, B) as other:
        assert one.path == other.path
        assert (one.is_joined, other.is_joined) == (False, True)


def test_file_stays_in_use_until_the_last_worker_leaves(first: Path) -> None:
    with ExitStack() as stack:
        one, _other = claim(first, A), stack.enter_context(running(first, A))
        one.release()
        one.release()  # a second call does no harm
        with running(first, B) as second:
            assert second.path != first


def test_restarted_service_finds_the_file_of_its_port(first: Path) -> None:
    with running(first, A), running(first, B) as second:
        own = second.path
    with running(first, Owner("b again", 3001)) as again:
        assert again.path == own
        assert again.is_usual


def test_file_without_a_running_service_goes_to_the_next_service(first: Path) -> None:
    with running(first, A):
        pass
    with running(first, B) as found:
        assert found.path == first
        assert found.former == A
        assert "was in use by the service on port 3000, which does not run now" in found.origin
    with running(first, Owner("b again", 3001)) as again:
        assert again.is_usual


def test_services_of_unknown_port_take_the_first_free_file(first: Path) -> None:
    with running(first, Owner("x")) as one, running(first, Owner("y")) as other:
        assert (one.path.name, other.path.name) == ("demo.sqlite3", "demo+2.sqlite3")
        assert other.origin.startswith("demo.sqlite3 is in use by another service; ")


def test_lock_without_a_readable_owner_counts_all_the_same(first: Path) -> None:
    with running(first, A):
        first.with_name("demo.sqlite3.lock").write_text('{"other": "version"}')
        with running(first, B) as second:
            assert second.path != first


def test_look_says_the_same_and_changes_nothing(first: Path) -> None:
    assert look(first, A).path == first
    assert not first.parent.exists()
    with running(first, A):
        before = sorted(first.parent.iterdir())
        assert look(first, B).path.name == "demo+2.sqlite3"
        assert sorted(first.parent.iterdir()) == before
        with running(first, B) as second:
            assert second.path.name == "demo+2.sqlite3"


def test_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text("a file")
    with pytest.raises(ConfigurationError, match=r"The folder of the jobs, .*/jobs, cannot be used: .*JOB_STORE_URL"):
        claim(first_file(tmp_path / "jobs", "demo", None), A)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOLCK, "Its file system has no locks (flock)"),
        (errno.EOPNOTSUPP, "Its file system has no locks (flock)"),
        (errno.ENOSPC, "Make room on its disk, or set GPTOSS_BENTO_CACHE or JOB_STORE_URL."),
        (errno.EROFS, "Make it writable for this user, or set GPTOSS_BENTO_CACHE or JOB_STORE_URL."),
    ],
)
def test_folder_that_cannot_be_used_comes_with_what_would_help(
    code: int, advice: str, first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", fail)

    with pytest.raises(ConfigurationError) as refused:
        claim(first, A)
    assert f"/jobs, cannot be used: {os.strerror(code)}. {advice}" in str(refused.value)


def test_folder_that_may_not_be_written_is_left_to_who_names_uid_and_owner(
    first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, *_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", fail)

    with pytest.raises(PermissionError, match=r"jobs/claims\.lock"):
        claim(first, A)


def _sleep(runs: Event) -> None:
    runs.set()
    time.sleep(60)


@pytest.mark.skipif(sys.platform != "linux", reason="multiprocessing forks on Linux alone")
def test_fork_of_a_worker_does_not_keep_the_file(first: Path) -> None:
    with running(first, A):
        forking = multiprocessing.get_context("fork")
        runs = forking.Event()
        child = forking.Process(target=_sleep, args=(runs,))
        child.start()
        assert runs.wait(60)
    try:
        with running(first, B) as found:
            assert found.path == first
    finally:
        child.kill()
        child.join()
