"""Metrics of jobs at /metrics, beside vLLM's and BentoML's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import Gauge


@dataclass(frozen=True)
class JobGauges:
    """Numbers of jobs. `in_queue` is of the whole store, which replicas may share: take its maximum, not its sum."""

    in_queue: Gauge
    in_progress: Gauge


@cache
def job_gauges() -> JobGauges:
    """The gauges of this process. Not before a worker runs.

    prometheus_client reads PROMETHEUS_MULTIPROC_DIR once, when it is imported; BentoML sets it for its workers
    alone, after the supervisor has imported service.py (source: bentoml/metrics.py).
    """
    from prometheus_client import Gauge

    return JobGauges(
        in_queue=Gauge(
            "gptoss_bento_jobs_in_queue",
            "Jobs that wait in the store, whichever replica accepted them",
            multiprocess_mode="mostrecent",
        ),
        in_progress=Gauge(
            "gptoss_bento_jobs_in_progress",
            "Jobs that this replica runs",
            multiprocess_mode="livesum",
        ),
    )
