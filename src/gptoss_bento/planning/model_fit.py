"""The requirements of a model's own dimensions: architecture, hardware, lengths, numbers of GPUs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gptoss_bento.config.profile import Profile, Requirements, Shape, meets
from gptoss_bento.config.settings import Settings
from gptoss_bento.config.vllm_options import parse_bool
from gptoss_bento.errors import ConfigurationError, HardwareError
from gptoss_bento.hardware.probe import Hardware
from gptoss_bento.planning.memory_estimate import NotEstimableError, read_count
from gptoss_bento.planning.model_config import ARCHITECTURE, ModelConfig

_ALLOW_LONGER = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"


def check_architecture(model: ModelConfig, settings: Settings) -> None:
    """Refuses another architecture than GPT-OSS's, unless the operator allowed it.

    Raises:
        ConfigurationError: config.json names another one.
    """
    if model.is_other and not settings.server.allow_other_architectures:
        raise ConfigurationError(
            f"{model.origin} says {model.architecture}, but this server is made for {ARCHITECTURE}. "
            "Correct MODEL_NAME; ALLOW_OTHER_ARCHITECTURES=true serves it all the same, untested."
        )


def is_own_model(profile: Profile, model: ModelConfig, settings: Settings) -> bool:
    """Whether the weights are those that the profile names, under its name or in a folder of the hub's cache."""
    source = profile.model.source
    return settings.model_name in (None, source) or model.hub_id.lower() == source.lower()


def is_own_size(profile: Profile, model: ModelConfig, own_model: bool) -> bool:
    """Whether the profile's figures are those of the model: its own weights, or a fine-tune of them stored alike."""
    if model.shape is None or profile.model.shape is None:
        return own_model
    return model.shape.is_size_of(profile.model.shape)


def has_mxfp4_experts(model: ModelConfig) -> bool:
    """Whether the kernels for MXFP4 serve its experts; assumed of a model of which nothing is known."""
    return model.shape.expert_bits is not None if model.shape else not model.is_other


def requirements(profile: Profile, model: ModelConfig, own_size: bool) -> Requirements | None:
    """The least hardware for this model: the profile's, or by the model's dimensions. None: nothing is known of it."""
    if own_size:
        return profile.requires
    if model.shape is None:
        return None
    base, quantized = profile.requires, has_mxfp4_experts(model)
    known = base.gpus and not model.beyond_estimate
    return Requirements(
        gpus=base.gpus,
        total_gpu_memory_gib=round(model.shape.weights_gib, 1) if known else 0,
        compute_capability=base.compute_capability if quantized else 0,
        amd_families=base.amd_families if quantized else (),
        reason=f"the weights, by {model.origin}",
    )


def check_hardware(profile: Profile, model: ModelConfig, own_size: bool, hardware: Hardware) -> None:
    """Refuses hardware below what the model needs.

    Raises:
        HardwareError: there is too little, or it is too old.
    """
    needs = requirements(profile, model, own_size)
    if needs is None or meets(needs, hardware, model.shape):
        return
    alone = _enough_alone(needs, hardware, model.shape)
    if own_size:
        way_out = alone or "Choose another profile with PROFILE; 'demo' runs everywhere."
        raise HardwareError(f"Profile {profile.name!r} needs {needs}; found: {hardware}. {way_out}")
    raise HardwareError(f"The model of {model.origin} needs {needs}; found: {hardware}. {alone}".rstrip())


def _enough_alone(needs: Requirements, hardware: Hardware, shape: Shape | None) -> str:
    """On a machine with several kinds of cards: which of them would do without the others."""
    for kind in dict.fromkeys(hardware.gpus):
        alone = replace(hardware, gpus=tuple(gpu for gpu in hardware.gpus if gpu == kind))
        if meets(needs, alone, shape):
            return f"{alone} alone would do: name no others in CUDA_VISIBLE_DEVICES (`nvidia-smi -L` has the UUIDs)."
    return ""


def check_sharing(shape: Shape, tensor_parallel: int, origin: str) -> None:
    """Refuses a number of GPUs among which vLLM cannot divide the model's heads.

    Raises:
        ConfigurationError: heads or key-value heads are no multiple of it.
    """
    if shape.can_be_shared_by(tensor_parallel):
        return
    possible = [str(size) for size in range(1, shape.kv_heads + 1) if shape.can_be_shared_by(size)]
    raise ConfigurationError(
        f"tensor_parallel_size is {tensor_parallel} ({origin}), which does not divide the model's {shape.heads} heads "
        f"and {shape.kv_heads} key-value heads; allowed: {', '.join(possible)}."
    )


def check_length(model: ModelConfig, value: Any, origin: str, process: Mapping[str, str]) -> None:
    """Refuses a length that the operator asked for and that the model does not have. vLLM would, minutes later.

    Args:
        value: max_model_len as set, also `4k` or `auto`.
        process: the environment, in which the operator may allow it to vLLM.

    Raises:
        ConfigurationError: it is longer than the model.
    """
    if longer_than_model(model, value) and model.shape and not _allows_longer(process):
        raise ConfigurationError(
            f"max_model_len is {value} ({origin}), but the model has {model.shape.max_length} positions "
            f"(max_position_embeddings, {model.origin}). {_ALLOW_LONGER}=1 allows it to vLLM."
        )


def longer_than_model(model: ModelConfig, value: Any) -> bool:
    """Whether max_model_len is beyond the model's own length. `auto` and what is no number are not."""
    try:
        return model.shape is not None and read_count("max_model_len", value) > model.shape.max_length
    except NotEstimableError:
        return False


def _allows_longer(process: Mapping[str, str]) -> bool:
    try:
        return parse_bool(process.get(_ALLOW_LONGER, "0"))
    except ValueError:
        return False
