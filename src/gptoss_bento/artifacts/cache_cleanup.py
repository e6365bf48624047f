"""Removes what a killed download leaves in the hub's cache.

The hub's library writes each attempt into a separate file and resumes none, so that two processes never write into
one file. An incomplete file of a killed process is useless, and may have tens of GB.
Files that artifacts/resumable_downloads.py can resume are kept until the model is there without them.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from pathlib import Path

from gptoss_bento.artifacts.resumable_downloads import KEPT

logger = logging.getLogger(__name__)

_UNTOUCHED_S = 60.0
"""A stalled transfer is given up before that. Some file systems on a network grant every lock immediately."""

_LOCK_S = 0.01


def cache_folder(model: str) -> str:
    """The name of a model's folder in the hub's layout."""
    return f"models--{model.replace('/', '--')}"


def remove_incomplete_downloads(model: str, hub_cache: Path, *, kept: bool = False) -> None:
    """Removes the unfinished files of this model that no process writes to any more. What cannot be removed stays.

    Args:
        hub_cache: the folder of all models (HF_HUB_CACHE).
        kept: also those that could be resumed.
    """
    name = cache_folder(model)
    locks = hub_cache / ".locks" / name
    left = (hub_cache / name / "blobs").glob("*.incomplete")
    removed = [_removed(path, locks) for path in left if kept or not path.name.endswith(KEPT)]
    if freed := sum(removed):
        logger.info("removed %.2f GB of incomplete downloads of %s", freed / 1e9, model)


def _removed(path: Path, locks: Path) -> int:
    """The bytes that this freed. The file is HASH.RANDOM.incomplete, and HASH.lock is held while it is written."""
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    with suppress(OSError):  # a timeout is one, too
        found = path.stat()
        if time.time() - found.st_mtime < _UNTOUCHED_S:
            return 0
        locks.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(locks / f"{path.name.partition('.')[0]}.lock", timeout=_LOCK_S):
            path.unlink()
        return found.st_size
    return 0
