"""Transfers from the hub that resume where they ended, after a reset, a time-out or a kill.

The hub's library asks for the rest of a file whose connection was closed. If it was reset, or the network is away for
more than some seconds, the call ends, and with it goes the unfinished file. After a kill the file is there, but the
next attempt starts a new one. So what arrives goes into a file whose name the next attempt knows, and the hash of the
whole file shows whether the pieces fit. Files in Xet storage arrive through `xet_get`, which is left as it is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from gptoss_bento.artifacts import patches
from gptoss_bento.config import manifest
from gptoss_bento.errors import ArtifactError

logger = logging.getLogger(__name__)

KEPT = ".kept.incomplete"
"""HASH.kept.incomplete beside HASH. Its writer holds the library's lock of that hash."""

_GIVE_UP_S = 300.0
_PAUSE_S = 5.0
_SHA256_LENGTH = 64  # hexadecimal digits

Get = Callable[..., None]


@contextmanager
def resumed_downloads() -> Iterator[None]:
    """Lets the hub's library keep and take up what is unfinished, until the end of the block.

    Raises (from the download in the block):
        ArtifactError: a file has another hash than the hub says. It was removed.
    """
    library = patches.DOWNLOAD.original()

    def http_get(url: str, temp_file: BinaryIO, **options: Any) -> None:
        if "_tqdm_bar" in options:  # the library asks for the rest by itself, through this name
            library(url, temp_file, **options)
        else:
            name = urlsplit(url).path.rpartition("/")[2]  # what follows may be a signature
            _transfer(partial(library, url), Path(temp_file.name), name, **options)

    with patches.DOWNLOAD.replaced(http_get):
        yield


def _transfer(
    get: Get,
    target: Path,
    name: str,
    *,
    expected_size: int | None = None,
    tqdm_class: Callable[..., Any] | None = None,
    **options: Any,
) -> None:
    """Brings all of a file to `target`, which the library has named HASH.RANDOM.incomplete."""
    expected = target.name.rsplit(".", 2)[0]
    kept = target.with_name(expected + KEPT)
    with kept.open("ab") as file:
        if not _is_sha256(expected) or (expected_size is not None and file.tell() > expected_size):
            _empty(file)
        found = file.tell()
        bar = tqdm_class(total=expected_size, initial=found) if tqdm_class else None
        whole = partial(_fill, get, file, expected_size=expected_size, _tqdm_bar=bar, **options)
        if found:
            logger.info("resuming the download of %s after %.2f GB", name, found / 1e9)
        whole()
        intact = _is_intact(kept, expected)
        if found and not intact:
            logger.warning("the first part of %s does not fit the rest; the download starts again", name)
            if bar is not None:
                bar.update(-file.tell())
            _empty(file)
            whole()
            intact = _is_intact(kept, expected)
    if not intact:
        kept.unlink()
        raise ArtifactError(f"{name} came damaged from the hub: the hash differs. It was removed; try again.")
    kept.replace(target)


def _fill(get: Get, file: BinaryIO, **options: Any) -> None:
    """Asks for the rest until it is there, as long as some of it comes every few minutes.

    A file of which nothing has come yet ends with its first error: then it is rather the configuration.
    """
    size, since = file.tell(), None
    while True:
        try:
            get(file, resume_size=file.tell(), **options)
            file.flush()
            return
        except Exception as error:
            if file.tell() != size:
                size, since = file.tell(), time.monotonic()
            if since is None or time.monotonic() - since > _GIVE_UP_S or not _may_pass(error):
                raise
            logger.warning("the download was interrupted (%s); it resumes in %g s", type(error).__name__, _PAUSE_S)
            time.sleep(_PAUSE_S)


def _may_pass(error: Exception) -> bool:
    """Whether it is the network's or the server's, and not about what was asked."""
    import httpx2  # what the hub's library speaks through
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500
    return isinstance(error, httpx2.TransportError)


def _empty(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()


def _is_intact(path: Path, expected: str) -> bool:
    """Small files, and those of some mirrors, are named by something else."""
    return not _is_sha256(expected) or manifest.sha256(path) == expected


def _is_sha256(name: str) -> bool:
    return len(name) == _SHA256_LENGTH
