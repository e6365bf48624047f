"""A profile as BentoML's service decorator wants it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import bentoml

from gptoss_bento.profile import AUTOMATIC, Profile, load_profile

_BASE_IMAGES = {"cpu": "python:3.11-slim", "cuda": "nvidia/cuda:13.0.2-runtime-ubuntu24.04"}

# OpenTelemetry's middleware makes a span of every streamed message, recorded or not: 40 of the 43 µs that BentoML adds
# to each. Whoever turns tracing on gets it back with `tracing.excluded_urls: []` in BENTOML_CONFIG.
_TRACING = {"excluded_urls": "/v1/,/tokenize,/detokenize"}


@dataclass(frozen=True)
class Bundle:
    """The profile's name and the keyword arguments of `bentoml.service`."""

    profile: str
    options: dict[str, Any]


def describe(profile: str | None) -> Bundle:
    """What a Bento of this profile declares. None: the machine that serves it decides, and nothing is reserved.

    Raises:
        ConfigurationError: there is no such profile, or its file is wrong.
    """
    if profile is None or profile == AUTOMATIC:
        return Bundle(AUTOMATIC, {"image": _image("cuda"), "traffic": {"timeout": 3600}, "tracing": _TRACING})
    chosen = load_profile(profile)
    return Bundle(profile, _options(profile, chosen))


def _options(name: str, profile: Profile) -> dict[str, Any]:
    environment = {"PROFILE": name, **profile.service.environment}
    return {
        "description": profile.description,
        "resources": profile.service.resources,
        "traffic": profile.service.traffic,
        "tracing": _TRACING,
        "envs": [{"name": name, "value": value} for name, value in environment.items()],
        "labels": {"profile": profile.name, "model": profile.model.source},
        "image": _image("cuda" if profile.requires.gpus else "cpu"),
    }


def _image(platform: str) -> bentoml.images.Image:
    return bentoml.images.Image(base_image=_BASE_IMAGES[platform], python_version="3.11", lock_python_packages=False)
