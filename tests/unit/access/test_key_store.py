"""The keys that are valid now."""

from __future__ import annotations

import errno
import hmac
import logging
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from gptoss_bento.access import key_store
from gptoss_bento.access.key_store import KeyStore
from gptoss_bento.config.api_keys import digest, listed_keys
from tests.fakes import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "keys.yaml"
    file.write_text("alice: {key: first}\n")
    return file


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def names(ring: KeyStore, *keys: str) -> list[str | None]:
    found = [ring.find(key) for key in keys]
    return [key.name if key else None for key in found]


def test_key_store_without_a_source_is_open() -> None:
    assert KeyStore().is_open
    assert not KeyStore(listed_keys(["a"])).is_open
    assert not KeyStore(closed=True).is_open


def test_keys_of_variables_and_of_the_file_are_valid_together(file: Path) -> None:
    ring = KeyStore(listed_keys(["listed"]), file)

    assert not ring.is_open
    assert names(ring, "listed", "first", "other", "") == ["key-1", "alice", None, None]
    alice = ring.of_owner("alice")
    assert alice is not None
    assert ring.find("first") == alice
    assert ring.of_owner("bob") is None


def test_keys_are_all_compared_in_constant_time(file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(given: bytes, each: bytes) -> bool:
        compared.append(each)
        return hmac.compare_digest(given, each)

    ring = KeyStore(listed_keys(["listed", "second"]), file, clock=clock)
    monkeypatch.setattr(key_store, "hmac", SimpleNamespace(compare_digest=compare))
    for given in ("listed", "first", "wrong", ""):  # the right one ends nothing
        compared.clear()
        ring.find(given)
        assert compared == [digest("listed"), digest("second"), digest("first")]


def test_changed_file_counts_within_a_second(file: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    ring = KeyStore((), file, clock=clock)
    file.write_text("alice: {key: second}\nbob: {key: third}\n")
    assert names(ring, "first", "second") == ["alice", None]
    clock.now += 1
    assert names(ring, "first", "second", "third") == [None, "alice", "bob"]
    assert "2 keys are valid now: alice, bob" in caplog.text
    assert "second" not in caplog.text


def test_file_that_is_replaced_by_one_of_the_same_size_and_time_is_seen(file: Path, clock: Clock) -> None:
    ring = KeyStore((), file, clock=clock)
    seen = file.stat()
    other = file.with_name("other")
    other.write_text("alice: {key: secnd}\n")
    os.utime(other, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    other.replace(file)
    clock.now += 1

    assert names(ring, "first", "secnd") == [None, "alice"]


@pytest.mark.parametrize("content", ["", "alice: {key: [s3cret}", "alice: {key: s3cret, jobs: 0}", None])
def test_file_gone_wrong_opens_nothing_and_closes_nothing(
    file: Path, clock: Clock, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    ring = KeyStore((), file, clock=clock)
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    clock.now += 1

    assert names(ring, "first", "s3cret") == ["alice", None]
    assert not ring.is_open
    clock.now += 1
    assert names(ring, "first") == ["alice"]
    assert caplog.text.count("API_KEYS_FILE") == 2  # the first keys, and the trouble once
    assert "s3cret" not in caplog.text


def test_key_of_the_file_that_is_also_a_fixed_one_is_trouble(file: Path, clock: Clock) -> None:
    ring = KeyStore(listed_keys(["listed"]), file, clock=clock)
    file.write_text("bob: {key: listed}\n")
    clock.now += 1

    assert names(ring, "listed", "first") == ["key-1", "alice"]


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Lets reads of files fail with this error, or succeed again."""
    read = Path.read_text

    def set_to(code: int | None) -> None:
        def failing(_: Path) -> str:
            raise OSError(code, os.strerror(code or 0))

        monkeypatch.setattr(Path, "read_text", failing if code else read)

    return set_to


def test_change_that_could_not_be_read_is_read_later(
    file: Path, clock: Clock, fail: Callable[[int | None], None], caplog: pytest.LogCaptureFixture
) -> None:
    ring = KeyStore((), file, clock=clock)
    caplog.clear()
    file.write_text("alice: {key: second}\n")
    for code in (errno.EMFILE, errno.EMFILE, errno.ESTALE):
        fail(code)
        clock.now += 1
        assert names(ring, "first", "second") == ["alice", None]
    fail(None)
    clock.now += 1
    assert names(ring, "first", "second") == [None, "alice"]

    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "API_KEYS_FILE: Too many open files; the keys before stay valid.",
        "API_KEYS_FILE: Stale file handle; the keys before stay valid.",
        "API_KEYS_FILE: 1 keys are valid now: alice",
    ]


def test_file_that_is_half_written_is_read_again(file: Path, clock: Clock) -> None:
    ring = KeyStore((), file, clock=clock)
    file.write_bytes("# ü\n".encode()[:3])
    clock.now += 1
    assert names(ring, "first") == ["alice"]
    file.write_text("# ü\nalice: {key: second}\n", encoding="utf-8")
    clock.now += 1
    assert names(ring, "first", "second") == [None, "alice"]


def test_rights_that_change_count_as_a_change(file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = KeyStore((), file, clock=clock)
    reads: list[Path] = []
    read = Path.read_text

    def seen(path: Path) -> str:
        reads.append(path)
        return read(path)

    monkeypatch.setattr(Path, "read_text", seen)
    for _ in range(3):
        clock.now += 1
        ring.find("first")
    assert not reads, "what did not change is not read"
    file.chmod(0o400)
    clock.now += 1
    ring.find("first")
    assert reads == [file]


def test_key_file_that_is_restored_is_logged_as_valid(
    file: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    ring = KeyStore((), file, clock=clock)
    away = file.rename(file.with_name("away"))
    for _ in range(3):
        clock.now += 1
        assert names(ring, "first") == ["alice"]
    caplog.clear()
    away.rename(file)
    clock.now += 1
    assert names(ring, "first") == ["alice"]
    assert "1 keys are valid now: alice" in caplog.text
