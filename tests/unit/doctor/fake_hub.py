"""A hub without a network, as gptoss_bento.doctor.hub.Hub describes it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SIZES = {
    "config.json": 1_000,
    "model-00001.safetensors": 9_000_000_000,
    "model-00002.safetensors": 4_000_000_000,
    "original/model.safetensors": 13_000_000_000,
    "metal/model.bin": 13_000_000_000,
}


@dataclass
class FakeHub:
    """Knows every model with these files, or fails for all of them; `holds` is what its cache has."""

    cache: Path
    failure: Exception | None = None
    offline: bool = False
    token: str | None = None
    holds: set[str] = field(default_factory=set)
    part: int = 0
    answers: threading.Event | None = None
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def has(self, model: str, _: str | None) -> bool:
        return model in self.holds

    def bytes_here(self, _: str) -> int:
        return self.part

    def files(self, model: str, revision: str | None) -> Mapping[str, int]:
        self.asked.append((model, revision))
        if self.answers is not None:
            self.answers.wait()
        if self.failure is not None:
            raise self.failure
        return SIZES
