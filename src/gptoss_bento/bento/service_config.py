"""A profile as BentoML's service decorator wants it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bentoml
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.server.metrics.prometheus import PrometheusClient

from gptoss_bento.artifacts.model_lookup import is_folder
from gptoss_bento.artifacts.prepare import DEMO, IGNORED_FILES
from gptoss_bento.bento.images import Platform, choose_platform, image
from gptoss_bento.config.process_environment import forget_metrics_folder
from gptoss_bento.config.profile import AUTOMATIC, Profile, load_profile
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.errors import ConfigurationError

# OpenTelemetry's middleware makes a span of every streamed message, recorded or not: 40 of the 43 µs that BentoML adds
# to each. An operator who turns tracing on gets it back with `tracing.excluded_urls: []` in BENTOML_CONFIG.
_TRACING = {"excluded_urls": "/v1/,/tokenize,/detokenize"}


@dataclass(frozen=True)
class Bundle:
    """The profile's name and the keyword arguments of `bentoml.service`."""

    profile: str
    options: dict[str, Any]


def describe(
    profile: str | None,
    server: ServerSettings | None = None,
    tls: Mapping[str, str | int] | None = None,
    workers: int = 1,
    platform: str | None = None,
    *,
    serving: bool = False,
) -> Bundle:
    """What a Bento of this profile declares. None: the machine that serves it decides, and nothing is reserved.

    Args:
        profile: its name, or a path.
        server: the operator's settings of the address and the time of a request; the profile's otherwise.
        tls: certificate and the rest, as BentoML names them.
        workers: how many processes are to serve it here; a Bento leaves that to the machine that serves it.
        platform: what the image is for, cpu, cuda or rocm; None: what the profile needs.
        serving: whether `bentoml serve` is about to start it on this machine; then its workers see all of the GPUs.

    Raises:
        ConfigurationError: there is no such profile or platform, or the profile's file is wrong.
    """
    server = server or ServerSettings()
    if profile is None or profile == AUTOMATIC:
        options: dict[str, Any] = {
            "image": image(choose_platform(None, platform)),
            "traffic": {"timeout": 3600},
            "tracing": _TRACING,
        }
    else:
        options = _options(profile, load_profile(profile), platform)
    if workers > 1:
        options["workers"] = workers
    if serving:
        options = _without_gpu_count(options)
    return Bundle(profile or AUTOMATIC, _with_settings(options, server, tls or {}))


def weights(profile: str) -> bentoml.models.HuggingFaceModel:
    """The profile's model as BentoML carries one: `bentoml build` pins its commit, `bentoml containerize` fetches it.

    Raises:
        ConfigurationError: the profile's model is not one of the hub.
    """
    model = load_profile(profile).model if profile != AUTOMATIC else None
    if model is None or model.source == DEMO or is_folder(model.source):
        raise ConfigurationError(f"bundle_weights: profile {profile!r} names no model of the hub.")
    return bentoml.models.HuggingFaceModel(model.source, revision=model.revision or "main", exclude=IGNORED_FILES)


def _with_settings(options: dict[str, Any], server: ServerSettings, tls: Mapping[str, str | int]) -> dict[str, Any]:
    """The options as the operator's variables change them. Flags of `bentoml serve` win over host and port."""
    address = {"host": server.host and str(server.host), "port": server.port}
    if explicit := {name: value for name, value in address.items() if value is not None}:
        options = {**options, "http": explicit}
    if "request_timeout" in server.model_fields_set:
        options = {**options, "traffic": {**options["traffic"], "timeout": server.request_timeout}}
    return {**options, "ssl": {"enabled": True, **tls}} if tls else options


def _resources(profile: Profile, platform: Platform) -> dict[str, Any]:
    """Those of the profile. The type of GPU that it names is NVIDIA's; which of AMD's there are, a cloud must say."""
    named = profile.service.resources
    return {key: value for key, value in named.items() if platform is not Platform.ROCM or key != "gpu_type"}


def _without_gpu_count(options: dict[str, Any]) -> dict[str, Any]:
    """The options without the number of GPUs that a cloud must reserve.

    BentoML's supervisor would set CUDA_VISIBLE_DEVICES for the workers to that many of this machine's GPUs, the first
    ones (_bentoml_impl/server/allocator.py). Without a number it leaves the variable alone. Its switch,
    BENTOML_DISABLE_GPU_ALLOCATION, would also disable a number that the operator sets in BENTOML_CONFIG.
    """
    resources = {key: value for key, value in options.get("resources", {}).items() if key != "gpu"}
    rest = {key: value for key, value in options.items() if key != "resources"}
    return {**rest, "resources": resources} if resources else rest


def _options(name: str, profile: Profile, platform: str | None) -> dict[str, Any]:
    chosen = choose_platform(profile, platform)
    environment = {"PROFILE": name, **profile.service.environment}
    return {
        "description": profile.description,
        "resources": _resources(profile, chosen),
        "traffic": profile.service.traffic,
        "tracing": _TRACING,
        "envs": [{"name": name, "value": value} for name, value in environment.items()],
        "labels": {"profile": profile.name, "model": profile.model.source, "platform": chosen.value},
        "image": image(chosen),
    }


def keep_metrics_in(folder: Path) -> None:
    """Sets the folder in which the processes of this service keep their metrics; BentoML makes and empties it.

    Its own choice is one folder for all services of a user, where each start takes the others' metrics away.
    """
    BentoMLContainer.prometheus_multiproc_dir.set(str(folder))


def keep_metrics_in_process() -> None:
    """Sets up BentoML's metrics for a service whose only process with metrics is this one.

    prometheus_client's files, which BentoML asks for, make each count several times as costly, vLLM's for each token
    included. Call it before prometheus_client is imported, which reads the folder's variable once.
    """
    forget_metrics_folder()
    BentoMLContainer.metrics_client.set(PrometheusClient(multiproc=False))
