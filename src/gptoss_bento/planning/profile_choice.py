"""Which profile a model and a machine get where the operator named none, and what contradicts one that was named.

Reads profiles; the model's config.json is read by the function that is passed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gptoss_bento.config.profile import AUTOMATIC, Profile, Shape, fits, load_profile, profile_names
from gptoss_bento.config.settings import Settings
from gptoss_bento.hardware.probe import Hardware
from gptoss_bento.planning.model_config import ModelConfig, config_of_profile

Find = Callable[[str, str | None], ModelConfig]
"""Finds the config.json of a model (hub id or folder) at a revision: `model_lookup.finder` returns one."""


@dataclass(frozen=True)
class ProfileChoice:
    """A profile and the model to serve. `origin` is empty where the operator named the profile, or the hardware did."""

    profile: Profile
    model: ModelConfig
    origin: str = ""


def choose_profile(name: str, settings: Settings, hardware: Hardware, find: Find) -> ProfileChoice:
    """The profile of this name; for AUTOMATIC that of the model's size, without a model what the hardware can serve.

    A model that a profile of the bundle names is not looked up, because that profile has its dimensions.

    Raises:
        ConfigurationError: there is no such profile, or its file or the model's config.json is wrong.
        ArtifactError: the model's config.json cannot be read.
    """
    if name != AUTOMATIC:
        return _named(name, settings, find)
    if settings.model_name is None:
        profile = load_profile(_by_hardware(hardware))
        return ProfileChoice(profile, config_of_profile(profile))
    profiles = bundled_profiles()
    model = _model(settings.model_name, settings.model_revision, profiles, find)
    profile, origin = _suitable(model, hardware, profiles)
    return ProfileChoice(profile, model, origin)


def bundled_profiles() -> tuple[Profile, ...]:
    """All profiles that come with the bundle."""
    return tuple(load_profile(name) for name in profile_names())


def _by_hardware(hardware: Hardware) -> str:
    return "gpt-oss-20b" if fits(load_profile("gpt-oss-20b"), hardware) else "demo"


def _model(source: str, revision: str | None, profiles: Sequence[Profile], find: Find) -> ModelConfig:
    own = next((profile for profile in profiles if profile.model.source == source), None)
    return config_of_profile(own) if own else find(source, revision)


# A profile that the operator named


def _named(name: str, settings: Settings, find: Find) -> ProfileChoice:
    profile = load_profile(name)
    if settings.model_name is None and name in profile_names():
        return ProfileChoice(profile, config_of_profile(profile))
    profiles = bundled_profiles()
    source = settings.model_name or profile.model.source
    model = _model(source, settings.model_revision or profile.model.revision, profiles, find)
    if source == profile.model.source and profile.model.shape and not model.architecture:
        # Its config.json is out of reach, and so is its architecture, but the profile has its dimensions.
        model = replace(config_of_profile(profile), architecture="")
    return ProfileChoice(profile, _with_contradiction(model, profile, profiles))


def _with_contradiction(model: ModelConfig, profile: Profile, profiles: Sequence[Profile]) -> ModelConfig:
    """The model with a warning if the profile describes one of another size."""
    described = profile.model.shape
    if model.shape is None or described is None or model.shape.dimensions == described.dimensions:
        return model
    better = _match(model.shape, profiles)
    hint = f"; PROFILE={better.name} is made for it" if better else ""
    warning = (
        f"profile {profile.name!r} describes a model of {described}, but {model.origin} one of {model.shape}: memory "
        f"and limits are planned for the model, tiers and goals are the profile's{hint}"
    )
    return replace(model, warnings=(*model.warnings, warning))


# A profile for a model


def _suitable(model: ModelConfig, hardware: Hardware, profiles: Sequence[Profile]) -> tuple[Profile, str]:
    """The profile, and why it is this one; empty for the profile that names the model itself."""
    if model.shape is None:
        return load_profile(_by_hardware(hardware)), "what the hardware can serve"
    if same := _match(model.shape, profiles):
        names_it = model.origin == config_of_profile(same).origin
        return same, "" if names_it else "for a model of the size in config.json"
    nearest = min(_candidates(hardware, profiles), key=lambda profile: _distance(model.shape, profile.model.shape))
    return nearest, f"nearest in size to the model, which has {model.shape.weights_gib:.1f} GiB of weights"


def _match(shape: Shape, profiles: Sequence[Profile]) -> Profile | None:
    described = ((profile, profile.model.shape) for profile in profiles)
    return next((profile for profile, own in described if own and own.dimensions == shape.dimensions), None)


def _candidates(hardware: Hardware, profiles: Sequence[Profile]) -> list[Profile]:
    """With GPUs only the profiles that need one: that of the demo model keeps to a fifth of a card and 4,096 tokens."""
    described = [profile for profile in profiles if profile.model.shape]
    for_gpus = [profile for profile in described if profile.requires.gpus]
    return for_gpus if hardware.gpus and for_gpus else described


def _distance(one: Shape | None, other: Shape | None) -> float:
    """How far apart two sizes are. Tiers go by what weights leave of a card, so the weights' memory is compared."""
    if one is None or other is None:
        return math.inf
    return abs(math.log(one.weights_gib / other.weights_gib))
