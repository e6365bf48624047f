from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import pytest
from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

from gptoss_bento.artifacts.cache_cleanup import remove_incomplete_downloads
from tests.hub import MODEL

FOLDER = "models--acme--tiny"
AN_HOUR_S = 3600


def unfinished(
    cache: Path, folder: str = FOLDER, age_s: float = AN_HOUR_S, name: str = "0123abcd.89ef4567.incomplete"
) -> Path:
    """A file as the hub's library leaves it, last written to so long ago."""
    path = cache / folder / "blobs" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(20_000_000))
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_incomplete_downloads_of_a_killed_process_are_removed_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left = unfinished(tmp_path)
    whole = left.with_name("4567")
    whole.touch()

    with caplog.at_level(logging.INFO):
        remove_incomplete_downloads(MODEL, tmp_path)

    assert not left.exists()
    assert whole.exists()
    assert f"removed 0.02 GB of incomplete downloads of {MODEL}" in caplog.text


def test_incomplete_downloads_that_can_be_resumed_stay_until_the_model_is_there(tmp_path: Path) -> None:
    left = unfinished(tmp_path, name="0123abcd.kept.incomplete")

    remove_incomplete_downloads(MODEL, tmp_path)
    assert left.exists()
    remove_incomplete_downloads(MODEL, tmp_path, kept=True)
    assert not left.exists()


def test_incomplete_download_that_is_still_written_stays(tmp_path: Path) -> None:
    left = unfinished(tmp_path, age_s=1)

    remove_incomplete_downloads(MODEL, tmp_path)

    assert left.exists()


def test_incomplete_download_of_a_living_process_stays(tmp_path: Path) -> None:
    left = unfinished(tmp_path)
    lock = tmp_path / ".locks" / FOLDER / "0123abcd.lock"
    lock.parent.mkdir(parents=True)

    with WeakFileLock(lock):
        remove_incomplete_downloads(MODEL, tmp_path)

    assert left.exists()


def test_downloads_of_other_models_stay(tmp_path: Path) -> None:
    left = unfinished(tmp_path, folder="models--acme--other")

    remove_incomplete_downloads(MODEL, tmp_path)

    assert left.exists()


def test_empty_cache_stays_empty(tmp_path: Path) -> None:
    remove_incomplete_downloads(MODEL, tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_incomplete_download_that_cannot_be_removed_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / FOLDER / "blobs" / "0123abcd.89ef4567.incomplete"
    folder.mkdir(parents=True)  # removing a file fails here, even for root
    os.utime(folder, (0, 0))

    with caplog.at_level(logging.INFO):
        remove_incomplete_downloads(MODEL, tmp_path)

    assert folder.exists()
    assert caplog.text == ""
