"""How many kernels a server has compiled while it served, where its /metrics tell: each made all streams wait."""

from __future__ import annotations

import re

import httpx
from prometheus_client.parser import text_string_to_metric_families

# This service's counter, and any that vLLM may get for its JIT monitor.
_COUNTERS = re.compile(r"(gptoss_bento_jit_compilations|vllm[:_]jit\w*?)_total")
_TIMEOUT_S = 10.0


def count(base_url: str, key: str | None = None) -> int | None:
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


def counted(metrics: str) -> int | None:
    """The sum of the counters in a text of Prometheus' format; None without one, or if it is none."""
    try:
        samples = [sample for family in text_string_to_metric_families(metrics) for sample in family.samples]
    except ValueError:
        return None
    found = [sample.value for sample in samples if _COUNTERS.fullmatch(sample.name)]
    return round(sum(found)) if found else None


def between(before: int | None, after: int | None) -> int | None:
    """How many more."""
    return None if before is None or after is None else after - before
