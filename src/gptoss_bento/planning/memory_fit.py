"""Whether the planned length fits into memory: shortened or refused where it does not. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from gptoss_bento.config.profile import Profile
from gptoss_bento.config.settings import Settings
from gptoss_bento.errors import ConfigurationError, HardwareError
from gptoss_bento.planning.memory_estimate import (
    MEMORY_ARGUMENTS,
    Estimate,
    NotEstimableError,
    estimate,
)
from gptoss_bento.planning.plan import EnginePlan, Planned
from gptoss_bento.planning.value_origins import set_explicitly

# A length that is not set explicitly is shortened to what fits, less a margin; a server for fewer than _SHORTEST tokens
# is useless, so that is refused instead.
_MARGIN = 0.9
_SHORTEST = 1024


def with_memory(plan: EnginePlan, settings: Settings, profile: Profile) -> EnginePlan:
    """The plan with its estimate. Where a full-length request does not fit: shortened with a warning, or refused."""
    try:
        memory = _estimate(plan, profile)
    except NotEstimableError as error:
        return replace(plan, warnings=(*plan.warnings, f"memory is not estimated: {error}"))
    if memory.fits:
        return replace(plan, memory=memory)
    explicit = {name: planned for name, planned in set_explicitly(settings).items() if name in MEMORY_ARGUMENTS}
    if memory.longest < _SHORTEST or "max_model_len" in explicit:
        raise _too_large(plan, memory, explicit)
    return _shortened(plan, memory, lambda shorter: _estimate(shorter, profile))


def _estimate(plan: EnginePlan, profile: Profile) -> Estimate:
    """Raises NotEstimableError, also for a model of which too little is known."""
    shape = plan.config.shape
    if shape is None or plan.config.beyond_estimate:
        raise NotEstimableError(plan.config.beyond_estimate)
    if profile.model.shape:  # config.json does not mention a draft; the profile's is made for about this size
        shape = shape.model_copy(update={"draft_parameters": profile.model.shape.draft_parameters})
    gpu = min(plan.hardware.gpus, key=lambda gpu: gpu.memory_bytes, default=None)
    arguments = {name: planned.value for name, planned in plan.arguments.items()}
    return estimate(shape, gpu, arguments, _cpu_cache_gib(plan.environment))


def _cpu_cache_gib(environment: Mapping[str, Planned]) -> float | None:
    planned = environment.get("VLLM_CPU_KVCACHE_SPACE")
    try:
        return float(planned.value) if planned else None
    except ValueError:
        raise NotEstimableError("VLLM_CPU_KVCACHE_SPACE is not a number") from None


def _shortened(plan: EnginePlan, memory: Estimate, again: Callable[[EnginePlan], Estimate]) -> EnginePlan:
    """With the longest request that fits instead of a length that the operator did not set."""
    before = plan.arguments.get("max_model_len", Planned(memory.max_model_len, "vLLM"))
    length = _comfortable(memory)
    shortened = {**plan.arguments, "max_model_len": Planned(length, "estimate of what fits")}
    warning = (
        f"max_model_len is {length}, not {before.value} ({before.origin}): by estimate no longer request fits into the "
        f"{memory.kv_cache_gib:.1f} GiB that are left for the KV cache. MAX_MODEL_LEN sets it."
    )
    plan = replace(plan, arguments=shortened, warnings=(*plan.warnings, warning))
    return replace(plan, memory=again(plan))


def _comfortable(memory: Estimate) -> int:
    """A length that fits with a margin, since this is an estimate; thousands, as people choose them."""
    return max(_SHORTEST, int(memory.longest * _MARGIN) // _SHORTEST * _SHORTEST)


def _too_large(plan: EnginePlan, memory: Estimate, explicit: Mapping[str, Planned]) -> ConfigurationError:
    """Names what the operator set, since that is what can be changed; without any of it the hardware is too small."""
    named = ", ".join(f"{planned.origin}={planned.value}" for planned in explicit.values())
    left = f"{max(0.0, memory.kv_cache_gib):.1f} GiB are left for the KV cache of {plan.hardware} (estimated: {memory})"
    if memory.longest < _SHORTEST:
        own = plan.config.origin == f"profile {plan.profile}"
        what = f"Profile {plan.profile!r}" if own else f"The model of {plan.config.origin}"
        text = ". ".join([f"{what} does not fit: {left}", *plan.config.warnings]) + "."
        return ConfigurationError(f"{text} Set were {named}.") if named else HardwareError(text)
    return ConfigurationError(
        f"max_model_len {memory.max_model_len} does not fit: one request of that length needs {memory.request_gib:.1f} "
        f"GiB, but {left}. A value that would fit: {_comfortable(memory)}. Set were {named}."
    )
