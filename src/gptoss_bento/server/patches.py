"""Whatever of BentoML is used though it is private. Nothing of it is replaced."""

from __future__ import annotations

from gptoss_bento.patching import Patch, PrivateUse

_BENTOML = "tests/contract/test_bentoml.py::"

PATCHES: tuple[Patch, ...] = ()

PRIVATE_USES: tuple[PrivateUse, ...] = (
    PrivateUse(
        "starlette.applications:Starlette.user_middleware",
        "set",
        "Two layers of BentoML's application become ours before it is served (bentoml_layers.py).",
        _BENTOML + "test_layers_of_ours_replace_bentomls",
    ),
    PrivateUse(
        "bentoml._internal.server.http.traffic:TimeoutMiddleware",
        "read",
        "BentoML's keeps a timer of an hour for each request; ours takes its place and its option. BentoML always has "
        "one: `traffic.timeout` must be a number.",
        _BENTOML + "test_bentomls_timeout_still_keeps_a_timer_for_each_request",
    ),
    PrivateUse(
        "bentoml._internal.server.http.instruments:RunnerTrafficMetricsMiddleware",
        "read",
        "BentoML's makes each path a label: each job would be twenty numbers in /metrics, for ever. Ours takes its "
        "place and its options. `metrics.enabled: false` would take the route /metrics away too.",
        _BENTOML + "test_bentomls_metrics_still_have_every_path_as_a_label",
    ),
    PrivateUse(
        "bentoml._internal.server.http.instruments:RunnerTrafficMetricsMiddleware._setup",
        "called",
        "The metrics keep BentoML's names and labels. `_is_setup`, `skip_paths` and the metrics are read.",
        _BENTOML + "test_stream_is_counted_once_in_the_metrics",
    ),
    PrivateUse(
        "bentoml._internal.configuration.containers:BentoMLContainer.prometheus_multiproc_dir",
        "set",
        "Each service has its own folder for metrics (bento/service_config.py).",
        _BENTOML + "test_metrics_folder_can_be_separate_for_each_service",
    ),
    PrivateUse(
        "bentoml._internal.configuration.containers:BentoMLContainer.metrics_client",
        "set",
        "A single worker counts in the process, without files (bento/service_config.py).",
        _BENTOML + "test_single_worker_counts_in_the_process",
    ),
    PrivateUse(
        "bentoml.images:Image.run",
        "called",
        "Its text comes behind RUN as it is, so that HEALTHCHECK, ARG and secrets fit into it (bento/images.py).",
        _BENTOML + "test_dockerfile_fragments_are_at_their_positions",
    ),
)
