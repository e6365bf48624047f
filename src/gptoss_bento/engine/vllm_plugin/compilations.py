"""Records each kernel that Triton compiles in this process, or loads from its cache, one line of JSON each.

An engine that compiles while it serves lets every stream wait. The engine's processes append to one file, and the API
server reads it (engine/kernel_compilations.py): so /metrics can count what happened in other processes.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gptoss_bento.config.process_environment import compilations_file
from gptoss_bento.engine.vllm_plugin import patches, records

SERVING = ".serving"
"""Suffix of the file beside the record that marks the service as ready: later compilations make clients wait."""


def record() -> None:
    """From now on Triton's compilations in this process are recorded, if the service named a file for them."""
    if (path := compilations_file()) is None:
        return
    patches.DESCRIBE_CONSTANTS.wrap(_guarded)
    recorder = Recorder(path)
    patches.BEFORE_COMPILATION.replace(recorder.begin)
    patches.AFTER_COMPILATION.replace(recorder.end)  # vLLM's own monitor calls it, too
    logging.getLogger("vllm.utils.jit_monitor").addFilter(lambda _: path.with_suffix(SERVING).exists())


def _guarded(describe: Callable[..., Any]) -> Callable[..., Any]:
    """Triton describes each kernel to its hooks as JSON, which not all constants are. vLLM has the same guard."""

    @functools.wraps(describe)
    def described(*arguments: Any, **named: Any) -> Any:
        try:
            return describe(*arguments, **named)
        except (TypeError, ValueError):
            return None

    described._vllm_guarded = True  # type: ignore[attr-defined]  # or vLLM's monitor would guard it once more
    return described


class Recorder:
    """Triton's two hooks: before a kernel is compiled, and after it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._started_at = 0.0

    def begin(self, **_: Any) -> None:
        """Returning nothing lets Triton go on."""
        self._started_at = time.monotonic()

    def end(self, *, fn: Any = None, **_: Any) -> None:
        """Appends a line with the kernel's name and the seconds since `begin`."""
        seconds = time.monotonic() - self._started_at
        records.append(self._path, {"kernel": getattr(fn, "name", "unknown"), "seconds": round(seconds, 3)})
