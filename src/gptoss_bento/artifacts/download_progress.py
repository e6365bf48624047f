"""How far a download from the hub is, for a log and for the readiness probe; the hub's own bars are for terminals."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

Report = Callable[[str], None]
"""Is called with a short description of the progress."""

_INTERVAL_S = 10.0
_BYTES_BAR = "huggingface_hub.snapshot_download"  # of all files together; the other bars count files and network bytes


def download_progress(model: str, report: Report | None) -> type[Any] | None:
    """The class of bars for `snapshot_download`; None, which means its own bars, on a terminal without a `report`."""
    if report is None and sys.stderr.isatty():
        return None
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        """Draws nothing, and says how many bytes there are."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._counts_bytes = kwargs.get("name") == _BYTES_BAR
            super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]
            self.n, self.total = kwargs.get("initial") or 0, kwargs.get("total")
            self._reported = time.monotonic()

        def update(self, n: float | None = 1) -> bool | None:
            self.n += n or 0
            if self._counts_bytes and self.total and n:
                self._report_bytes()
            return None

        def _report_bytes(self) -> None:
            text = f"{model}: {_gigabytes(self.n)} of {_gigabytes(self.total)}"
            if report:
                report(text)
            if time.monotonic() - self._reported >= _INTERVAL_S:
                self._reported = time.monotonic()
                logger.info("downloading %s", text)

    return Bar


def _gigabytes(count: float | None) -> str:
    return f"{(count or 0) / 1e9:.2f} GB"
