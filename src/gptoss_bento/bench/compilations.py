"""How many kernels a server has compiled while it served, as its /metrics count them: each made all streams wait."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import httpx
from prometheus_client.parser import text_string_to_metric_families

_Result = TypeVar("_Result")

# This service's counters, and any that vLLM may get for its JIT monitor.
_NUMBER = re.compile(r"(gptoss_bento_jit_compilations|vllm[:_]jit\w*?)_total")
_SECONDS = re.compile(r"(gptoss_bento_jit_compilation_seconds|vllm[:_]jit\w*?_seconds)_total")
_TIMEOUT_S = 10.0
_SETTLE_S = 1.2  # this service polls twice a second, and its workers' counts are written as often


@dataclass(frozen=True)
class Compilations:
    """Kernels, and for how many seconds they were compiled."""

    number: int
    seconds: float

    def since(self, before: Compilations) -> Compilations:
        """What was compiled between two samples."""
        return Compilations(self.number - before.number, round(self.seconds - before.seconds, 3))


def during(base_url: str, run: Callable[[], _Result], key: str | None = None) -> tuple[_Result, Compilations | None]:
    """Runs something, and returns what the server compiled meanwhile; None: it does not count, or does not answer."""
    before = count(base_url, key)
    result = run()
    if before is None:
        return result, None
    time.sleep(_SETTLE_S)
    after = count(base_url, key)
    return result, after and after.since(before)


def count(base_url: str, key: str | None = None) -> Compilations | None:
    """What the server counted so far; None: it does not, or does not answer.

    Args:
        base_url: ends in /v1.
        key: goes into the Authorization header.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.get(f"{base_url.removesuffix('/v1')}/metrics", timeout=_TIMEOUT_S, headers=headers)
    except httpx.HTTPError:
        return None
    return counted(answer.text) if answer.is_success else None


def counted(metrics: str) -> Compilations | None:
    """The sums of the counters in a text of Prometheus' format; None without them, or if it is no such text."""
    try:
        samples = [sample for family in text_string_to_metric_families(metrics) for sample in family.samples]
    except ValueError:
        return None
    seconds = [sample.value for sample in samples if _SECONDS.fullmatch(sample.name)]
    number = [sample.value for sample in samples if _NUMBER.fullmatch(sample.name) and "_seconds" not in sample.name]
    return Compilations(round(sum(number)), sum(seconds)) if number else None
