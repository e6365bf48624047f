"""How the GPUs are shared. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from gptoss_bento.config.profile import PARALLEL_SIZES, Profile, Situation, largest_group
from gptoss_bento.config.settings import Settings
from gptoss_bento.errors import ConfigurationError
from gptoss_bento.hardware.probe import Hardware
from gptoss_bento.planning import model_fit
from gptoss_bento.planning.model_config import ModelConfig
from gptoss_bento.planning.plan import Planned
from gptoss_bento.planning.value_origins import set_explicitly


def situation_of(settings: Settings, profile: Profile, hardware: Hardware, model: ModelConfig) -> Situation:
    """What conditions ask about. As many GPUs share the model as can, where the operator set no number."""
    own_model = model_fit.is_own_model(profile, model, settings)
    arguments = {name: Planned(value, "profile") for name, value in profile.engine.arguments.items()} | set_explicitly(
        settings
    )
    sizes = {name: planned.value for name, planned in parallel_sizes(arguments)}
    free = len(hardware.gpus) // math.prod(sizes.values())
    tensor = sizes.get("tensor_parallel_size") or largest_group(free, model.shape)
    return Situation(
        hardware=hardware,
        tensor_parallel=max(1, tensor),
        pipeline_parallel=sizes.get("pipeline_parallel_size", 1),
        own_model=own_model,
        own_size=model_fit.is_own_size(profile, model, own_model),
        mxfp4=model_fit.has_mxfp4_experts(model),
    )


def parallel_sizes(arguments: Mapping[str, Planned]) -> list[tuple[str, Planned]]:
    """The settings that multiply the number of GPUs.

    Raises:
        ConfigurationError: one of them is below 1.
    """
    sizes = [(name, arguments[name]) for name in PARALLEL_SIZES if name in arguments]
    for name, size in sizes:
        if size.value < 1:
            raise ConfigurationError(f"{name} is {size.value} ({size.origin}); allowed: a whole number of at least 1.")
    return sizes


def check_parallel(arguments: Mapping[str, Planned], hardware: Hardware, model: ModelConfig) -> None:
    """Raises ConfigurationError where the sizes need more GPUs than there are, or do not divide the model."""
    sizes = parallel_sizes(arguments)
    if model.shape and (tensor := arguments.get("tensor_parallel_size")):
        model_fit.check_sharing(model.shape, tensor.value, tensor.origin)
    needed = math.prod(planned.value for _, planned in sizes)
    if hardware.gpus and needed > len(hardware.gpus):
        named = " and ".join(f"{name} {planned.value} ({planned.origin})" for name, planned in sizes)
        raise ConfigurationError(f"{named} need {needed} GPUs, but this process sees {len(hardware.gpus)}.")
