"""What the longest phase of a start is made of, that of the engine's processes: vLLM logs it, here it becomes values.

A process appends to one file, and the API server reads it for the phases of its start. If another vLLM changes a
text, only that time is missing.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gptoss_bento.config.process_environment import start_times_file
from gptoss_bento.engine.vllm_plugin import records


@dataclass(frozen=True)
class Line:
    """A format of vLLM's log lines, which has the time of one part of a start; `seconds` is the value's index."""

    text: str
    part: str
    seconds: int


_RUNNER = (
    Line("Model loading took %s GiB memory and %.6f seconds", "loading the model", 1),
    Line("Graph capturing finished in %.0f secs, took %.2f GiB", "CUDA graphs", 0),
)
LINES: Mapping[str, tuple[Line, ...]] = {
    "vllm.compilation.monitor": (
        Line("%storch.compile took %.2f s in total", "torch.compile", 1),
        Line("%sInitial profiling/warmup run took %.2f s", "first run of the model", 1),
    ),
    "vllm.v1.worker.gpu_model_runner": _RUNNER,
    "vllm.v1.worker.gpu.model_runner": _RUNNER,
}
"""By the name of vLLM's logger. Source: vLLM 0.32.0; tests/contract/test_vllm.py looks for each."""


def record() -> None:
    """From now on this process keeps what vLLM says of its start, if the service named a file for it."""
    if path := start_times_file():
        for name, lines in LINES.items():
            logging.getLogger(name).addFilter(Recorder(path, lines))


class Recorder(logging.Filter):
    """Reads what passes through a logger, and lets all of it pass."""

    def __init__(self, path: Path, lines: tuple[Line, ...]) -> None:
        super().__init__()
        self._path = path
        self._lines = {line.text: line for line in lines}

    def filter(self, record: logging.LogRecord) -> bool:
        line = self._lines.get(record.msg) if isinstance(record.msg, str) else None
        if line and isinstance(record.args, tuple) and len(record.args) > line.seconds:
            self._append(line.part, record.args[line.seconds])
        return True

    def _append(self, part: str, seconds: object) -> None:
        if isinstance(seconds, int | float):
            records.append(self._path, {"process": os.getpid(), "part": part, "seconds": seconds})


def read(path: Path | None) -> dict[str, float]:
    """Seconds of each part, in the order of their ends. Of several processes, which work side by side, the slowest."""
    if path is None or not path.exists():
        return {}
    by_process: dict[str, Counter[int]] = {}
    for said in records.parsed(path.read_bytes()):
        by_process.setdefault(said["part"], Counter())[said["process"]] += said["seconds"]
    return {part: max(seconds.values()) for part, seconds in by_process.items()}
