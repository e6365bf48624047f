from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import httpx2
import pytest
from huggingface_hub import file_download
from huggingface_hub.errors import HfHubHTTPError

from gptoss_bento.artifacts import resumable_downloads
from gptoss_bento.artifacts.resumable_downloads import KEPT, resumed_downloads
from gptoss_bento.errors import ArtifactError

CONTENT = bytes(range(100))
SHA256 = hashlib.sha256(CONTENT).hexdigest()
URL = "https://huggingface.co/acme/tiny/resolve/main/model.safetensors?Signature=secret"


def answer(status: int) -> HfHubHTTPError:
    return HfHubHTTPError("no", response=httpx2.Response(status, request=httpx2.Request("GET", URL)))


class FakeHub:
    """A fake of the library's `http_get`: each call returns the next piece, or raises; then all the rest."""

    def __init__(self, *pieces: int | Exception) -> None:
        self.pieces = list(pieces)
        self.content = CONTENT
        self.asked_from: list[int] = []

    def http_get(self, url: str, temp_file: BinaryIO, *, resume_size: int = 0, **_: Any) -> None:
        assert url == URL
        self.asked_from.append(resume_size)
        piece = self.pieces.pop(0) if self.pieces else len(self.content)
        if isinstance(piece, Exception):
            raise piece
        temp_file.write(self.content[resume_size : resume_size + piece])
        if resume_size + piece < len(self.content):
            raise httpx2.ReadError("connection reset")


class Bar:
    """What the library makes for each file."""

    def __init__(self, total: int, initial: int) -> None:
        self.total, self.n = total, initial

    def update(self, n: int) -> None:
        self.n += n


Download = Callable[..., Path]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses do not sleep; a clock counts them."""
    made: list[float] = []
    clock = SimpleNamespace(sleep=made.append, monotonic=lambda: sum(made))
    monkeypatch.setattr(resumable_downloads, "time", clock)
    return made


@pytest.fixture
def download(tmp_path: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> Download:
    """Downloads as the library does: into a separate file, through what the module calls `http_get`."""
    assert pauses == []

    def run(hub: FakeHub, name: str = SHA256, **options: Any) -> Path:
        monkeypatch.setattr(file_download, "http_get", hub.http_get)
        target = tmp_path / f"{name}.0badcafe.incomplete"
        with resumed_downloads(), target.open("wb") as file:
            file_download.http_get(URL, file, expected_size=len(CONTENT), **options)
        return target

    return run


def kept(folder: Path, content: bytes = CONTENT[:30], name: str = SHA256) -> Path:
    """What a kill has left."""
    path = folder / (name + KEPT)
    path.write_bytes(content)
    return path


def test_download_resumes_after_an_interruption(download: Download, pauses: list[float]) -> None:
    hub = FakeHub(40, 25, httpx2.ConnectError("no route"), answer(503))

    assert download(hub).read_bytes() == CONTENT

    assert hub.asked_from == [0, 40, 65, 65, 65]
    assert len(pauses) == 4


def test_download_resumes_after_a_kill(download: Download, tmp_path: Path) -> None:
    left, hub = kept(tmp_path), FakeHub()

    assert download(hub).read_bytes() == CONTENT

    assert hub.asked_from == [30]
    assert not left.exists()


def test_progress_counts_what_was_there_once(download: Download, tmp_path: Path) -> None:
    kept(tmp_path)
    bars: list[Bar] = []

    def make(**given: int) -> Bar:
        bars.append(Bar(**given))
        return bars[-1]

    download(FakeHub(40), tqdm_class=make)

    (bar,) = bars
    assert (bar.total, bar.n) == (100, 30)


@pytest.mark.parametrize("left", [b"from before the power failed", bytes(101)], ids=["other bytes", "too long"])
def test_download_that_does_not_fit_starts_again(left: bytes, download: Download, tmp_path: Path) -> None:
    kept(tmp_path, left)

    assert download(FakeHub()).read_bytes() == CONTENT


def test_download_without_a_hash_does_not_resume_that_of_another_process(download: Download, tmp_path: Path) -> None:
    kept(tmp_path, name="some-tag-of-a-mirror")
    hub = FakeHub(40)

    assert download(hub, "some-tag-of-a-mirror").read_bytes() == CONTENT

    assert hub.asked_from == [0, 40]


def test_file_with_another_hash_is_refused_and_removed(download: Download, tmp_path: Path) -> None:
    hub = FakeHub()
    hub.content = bytes(100)

    with pytest.raises(ArtifactError, match=r"^model\.safetensors came damaged"):
        download(hub)

    assert not list(tmp_path.glob("*.kept.incomplete"))


def test_network_that_stays_away_is_waited_for_some_minutes_and_nothing_is_lost(
    download: Download, pauses: list[float], tmp_path: Path
) -> None:
    with pytest.raises(httpx2.ConnectError):
        download(FakeHub(40, *[httpx2.ConnectError("no route")] * 1000))

    assert 300 < sum(pauses) < 310
    assert (tmp_path / (SHA256 + KEPT)).read_bytes() == CONTENT[:40]


@pytest.mark.parametrize(
    ("before", "error"),
    [
        ((), httpx2.ConnectError("no route")),
        ((40,), answer(403)),
        ((40,), OSError("No space left on device")),
    ],
    ids=["nothing ever came", "forbidden", "full disk"],
)
def test_download_ends_immediately_at_a_permanent_error(
    before: tuple[int, ...], error: Exception, download: Download, pauses: list[float]
) -> None:
    with pytest.raises(type(error)):
        download(FakeHub(*before, error))

    assert len(pauses) == len(before)


def test_library_is_as_before_afterwards(download: Download) -> None:
    hub = FakeHub()
    download(hub)

    assert file_download.http_get == hub.http_get
