"""Kernels that the engine's processes compiled, counted in /metrics and, while it serves, named in the log.

The processes record them in a file: vllm_plugin/compilations.py.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from gptoss_bento.engine.vllm_plugin import records
from gptoss_bento.engine.vllm_plugin.compilations import SERVING

if TYPE_CHECKING:
    from prometheus_client import Counter as Metric

logger = logging.getLogger(__name__)

_START, _SERVING = "start", "serving"
_SLOW_S = 0.1  # what takes less was loaded from Triton's cache, which no client notices
_NAMED = 5


@dataclass(frozen=True)
class Compilation:
    """One kernel, and how long the process that needed it waited."""

    kernel: str
    seconds: float


class KernelCompilations:
    """Reads the record as it grows. For the one worker that owns the engine, or a kernel would count several times.

    Args:
        path: the record; None: there is none, and nothing is counted.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._read_bytes = 0
        self._number, self._seconds = _metrics()

    def ready(self) -> None:
        """Ends the start: the compilations so far belong to it, and are logged with their times."""
        if self._path:
            with suppress(OSError):  # without it vLLM's monitor stays silent, and nothing else
                self._path.with_suffix(SERVING).touch()
        found = list(self._new())
        self._count(found, _START)
        if found:
            logger.info("kernels compiled or loaded at the start: %s", summary(found))

    def check(self) -> None:
        """Counts and logs the compilations since then: each of them made every stream wait."""
        found = list(self._new())
        self._count(found, _SERVING)
        if slow := [each for each in found if each.seconds >= _SLOW_S]:
            logger.warning("streams waited while the engine compiled: %s", summary(slow))

    def _count(self, found: list[Compilation], phase: str) -> None:
        self._number.labels(phase).inc(len(found))
        self._seconds.labels(phase).inc(sum(each.seconds for each in found))

    def _new(self) -> Iterator[Compilation]:
        if self._path is None or not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            lines = file.read()
        whole = lines[: lines.rfind(b"\n") + 1]  # the last line may be being written
        self._read_bytes += len(whole)
        for said in records.parsed(whole):
            yield Compilation(**said)


@cache
def _metrics() -> tuple[Metric, Metric]:
    """How many, and for how many seconds, by phase. prometheus_client is imported late: see bento/service_config.py."""
    from prometheus_client import Counter as Metric

    when = "while the service started, and while it served."
    number = Metric("gptoss_bento_jit_compilations", f"Kernels that the engine compiled {when}", ["phase"])
    seconds = Metric("gptoss_bento_jit_compilation_seconds", f"Seconds of these compilations {when}", ["phase"])
    for metric in (number, seconds):
        for phase in (_START, _SERVING):  # shows 0 from the start
            metric.labels(phase)
    return number, seconds


def summary(found: list[Compilation]) -> str:
    """Their number and time, and the kernels that took most of it."""
    by_kernel: dict[str, float] = {}
    for each in found:
        name = each.kernel.rpartition(".")[2]
        by_kernel[name] = by_kernel.get(name, 0) + each.seconds
    longest = sorted(by_kernel.items(), key=lambda item: -item[1])[:_NAMED]
    most = ", ".join(f"{kernel} {seconds:.1f} s" for kernel, seconds in longest)
    return f"{len(found)} in {sum(each.seconds for each in found):.1f} s ({most})"
