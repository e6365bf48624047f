"""Settings + profile + hardware → what vLLM is started with. Pure: reads nothing, probes nothing, starts nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptoss_bento.environment import Settings
from gptoss_bento.errors import ConfigurationError, HardwareError
from gptoss_bento.hardware import Hardware
from gptoss_bento.profile import Profile, fits
from gptoss_bento.vllm_options import known_options

# What every GPT-OSS server wants and vLLM does not choose by itself. Source: vLLM's GPT-OSS guide; the parser names
# are those registered in vLLM 0.32.
GPT_OSS_ARGUMENTS: Mapping[str, Any] = {
    "tool_call_parser": "openai",
    "enable_auto_tool_choice": True,
    "reasoning_parser": "openai_gptoss",
    "async_scheduling": True,
}
PROCESS_ENVIRONMENT: Mapping[str, str] = {
    "VLLM_NO_USAGE_STATS": "1",  # no telemetry
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # as `vllm serve`: a fork would inherit BentoML's sockets and threads
    "VLLM_ENABLE_RESPONSES_API_STORE": "1",  # GET and cancel of /v1/responses/{id} need it
}
# GPT-OSS has 64 attention heads in 8 key-value groups, so vLLM can only split it this way.
TENSOR_PARALLEL_SIZES = (8, 4, 2, 1)


@dataclass(frozen=True)
class Planned:
    """A value and where it comes from: default, profile, tier, or the name of a variable."""

    value: Any
    origin: str


@dataclass(frozen=True)
class EnginePlan:
    """Everything the engine is started with. `model` is a hub id, a folder, or `demo`."""

    profile: str
    hardware: Hardware
    model: Planned
    revision: Planned
    served_names: Planned
    arguments: Mapping[str, Planned]
    environment: Mapping[str, Planned]
    extra_arguments: tuple[str, ...] = ()

    def argv(self, model: str) -> list[str]:
        """The words that `vllm serve` would get. `model` is the place the weights were prepared at."""
        words = [f"--model={model}", "--served-model-name", *self.served_names.value]
        if self.revision.value and model == self.model.value:
            words.append(f"--revision={self.revision.value}")
        options = known_options()
        for name, planned in self.arguments.items():
            words += options[name].argv(planned.value)
        return [*words, *self.extra_arguments]

    def variables(self, vocabulary_dir: Path) -> dict[str, str]:
        """What the engine's processes need in their environment; openai_harmony looks for its vocabulary there."""
        planned = {name: str(planned.value) for name, planned in self.environment.items()}
        return {**planned, "TIKTOKEN_ENCODINGS_BASE": str(vocabulary_dir)}

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """(name, value, origin) of everything planned, for people."""
        yield "profile", self.profile, ""
        yield "hardware", str(self.hardware), "probed"
        yield "model", str(self.model.value), self.model.origin
        if self.revision.value:
            yield "revision", str(self.revision.value), self.revision.origin
        yield "served names", ", ".join(self.served_names.value), self.served_names.origin
        for name, planned in self.arguments.items():
            yield f"--{name.replace('_', '-')}", str(planned.value), planned.origin
        for name, planned in self.environment.items():
            yield name, str(planned.value), planned.origin
        if self.extra_arguments:
            yield "further arguments", " ".join(self.extra_arguments), "VLLM_EXTRA_ARGS"


def make_plan(settings: Settings, profile: Profile, hardware: Hardware) -> EnginePlan:
    """Completes what the operator said with what the profile and the hardware suggest. What was said is never changed.

    Raises:
        HardwareError: the profile cannot run on this hardware.
        ConfigurationError: two explicit values contradict each other.
    """
    origin = settings.origins
    model = _chosen(settings.model_name, origin.get("model"), profile.model.source)
    if not settings.model_name:
        _check_requirements(profile, hardware)
    arguments = _arguments(settings, profile, hardware)
    _check_tensor_parallel(arguments.get("tensor_parallel_size"), hardware)
    return EnginePlan(
        profile=profile.name,
        hardware=hardware,
        model=model,
        revision=_chosen(settings.model_revision, origin.get("revision"), profile.model.revision),
        served_names=_served_names(settings, profile),
        arguments=arguments,
        environment=_environment(profile, hardware),
        extra_arguments=settings.extra_arguments,
    )


def _chosen(explicit: Any, variable: str | None, from_profile: Any) -> Planned:
    return Planned(explicit, variable or "environment") if explicit else Planned(from_profile, "profile")


def _served_names(settings: Settings, profile: Profile) -> Planned:
    if settings.served_model_names:
        return Planned(settings.served_model_names, settings.origins["served_model_name"])
    if settings.model_name and settings.model_name != profile.model.source:
        return Planned((settings.model_name,), settings.origins["model"])
    return Planned(profile.model.served_names, "profile")


def _arguments(settings: Settings, profile: Profile, hardware: Hardware) -> dict[str, Planned]:
    planned = {name: Planned(value, "default for GPT-OSS") for name, value in GPT_OSS_ARGUMENTS.items()}
    if len(hardware.gpus) > 1:
        size = next(size for size in TENSOR_PARALLEL_SIZES if size <= len(hardware.gpus))
        planned["tensor_parallel_size"] = Planned(size, "number of GPUs")
    planned |= {name: Planned(value, "profile") for name, value in profile.engine.arguments.items()}
    for tier in profile.tiers_for(hardware):
        planned |= {name: Planned(value, f"tier {tier.name}") for name, value in tier.arguments.items()}
    if settings.tokenizer:
        planned["tokenizer"] = Planned(settings.tokenizer, settings.origins["tokenizer"])
    planned |= {name: Planned(value, settings.origins[name]) for name, value in settings.engine.items()}
    return planned


def _environment(profile: Profile, hardware: Hardware) -> dict[str, Planned]:
    planned = {name: Planned(value, "default") for name, value in PROCESS_ENVIRONMENT.items()}
    planned |= {name: Planned(value, "profile") for name, value in profile.engine.environment.items()}
    for tier in profile.tiers_for(hardware):
        planned |= {name: Planned(value, f"tier {tier.name}") for name, value in tier.environment.items()}
    return planned


def _check_requirements(profile: Profile, hardware: Hardware) -> None:
    if not fits(profile, hardware):
        raise HardwareError(
            f"Profile {profile.name!r} needs {profile.requires.gpus or 1} GPU(s) with together "
            f"{profile.requires.total_gpu_memory_gib:g} GiB ({profile.requires.reason}); found: {hardware}. "
            "Choose another profile with PROFILE; 'demo' runs everywhere."
        )


def _check_tensor_parallel(size: Planned | None, hardware: Hardware) -> None:
    if size is None or not hardware.gpus or size.value <= len(hardware.gpus):
        return
    raise ConfigurationError(
        f"tensor_parallel_size is {size.value} ({size.origin}), but this process sees {len(hardware.gpus)} GPU(s)."
    )
