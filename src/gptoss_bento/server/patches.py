"""Whatever of BentoML is replaced or used though it is private. `apply` is called when service.py is imported."""

from __future__ import annotations

from gptoss_bento.http.error_boundary import ErrorBoundary
from gptoss_bento.patching import Patch, PrivateUse
from gptoss_bento.server.request_metrics import RequestMetrics

_BENTOML = "tests/contract/test_bentoml.py::"

TIMEOUT = Patch(
    "bentoml._internal.server.http.traffic:TimeoutMiddleware",
    "BentoML's keeps a timer of an hour for each request, and answers an error without the shape of the API.",
    "None: `traffic.timeout` sets the seconds, and BentoML always adds its own class.",
    _BENTOML + "test_bentomls_timeout_still_keeps_a_timer_for_each_request",
)
REQUEST_METRICS = Patch(
    "bentoml._internal.server.http.instruments:RunnerTrafficMetricsMiddleware",
    "BentoML's makes each path a label: every job would be twenty numbers more in /metrics, for ever.",
    "`metrics: {enabled: false}` and a middleware of ours would lose the names that BentoCloud and dashboards know.",
    _BENTOML + "test_bentomls_metrics_still_have_every_path_as_a_label",
)

PATCHES: tuple[Patch, ...] = (TIMEOUT, REQUEST_METRICS)

PRIVATE_USES: tuple[PrivateUse, ...] = (
    PrivateUse(
        "bentoml._internal.server.http.instruments:HTTPTrafficMetricsMiddleware._setup",
        "called",
        "The metrics keep BentoML's names and labels. `_is_setup`, `skip_paths` and the metrics are read.",
        _BENTOML + "test_a_stream_is_counted_once_in_the_metrics",
    ),
    PrivateUse(
        "bentoml._internal.configuration.containers:BentoMLContainer.prometheus_multiproc_dir",
        "set",
        "Each service has its own folder for metrics (bento/service_config.py).",
        _BENTOML + "test_each_service_can_have_a_folder_for_metrics_of_its_own",
    ),
    PrivateUse(
        "bentoml._internal.configuration.containers:BentoMLContainer.metrics_client",
        "set",
        "A single worker counts in the process, without files (bento/service_config.py).",
        _BENTOML + "test_a_single_worker_counts_in_the_process",
    ),
    PrivateUse(
        "bentoml.images:Image.run",
        "called",
        "Its text comes behind RUN as it is, so that HEALTHCHECK, ARG and secrets fit into it (bento/images.py).",
        _BENTOML + "test_our_pieces_of_dockerfile_stand_where_they_are_meant_to",
    ),
)


def apply() -> None:
    """Before BentoML builds the application, where it takes its middlewares from here."""
    TIMEOUT.replace(ErrorBoundary)
    REQUEST_METRICS.replace(RequestMetrics)
