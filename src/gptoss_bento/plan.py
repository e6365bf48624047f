"""Settings + profile + hardware → what vLLM is started with. Pure: reads nothing, probes nothing, starts nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptoss_bento.errors import ConfigurationError, HardwareError
from gptoss_bento.hardware import Hardware
from gptoss_bento.profile import Profile, fits, largest_group
from gptoss_bento.settings import Settings
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
        # Ours wins here: the vocabulary was verified, and a folder the operator named without it was warned about.
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
    if model.value == profile.model.source:
        _check_requirements(profile, hardware)
    arguments = _arguments(settings, profile, hardware)
    _check_parallel(arguments, hardware)
    return EnginePlan(
        profile=profile.name,
        hardware=hardware,
        model=model,
        revision=_chosen(settings.model_revision, origin.get("revision"), profile.model.revision),
        served_names=_served_names(settings, profile),
        arguments=arguments,
        environment=_environment(settings, profile, hardware),
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
    planned |= {name: Planned(value, "profile") for name, value in profile.engine.arguments.items()}
    for tier in profile.tiers_for(hardware):
        planned |= {name: Planned(value, f"tier {tier.name}") for name, value in tier.arguments.items()}
    if settings.tokenizer:
        planned["tokenizer"] = Planned(settings.tokenizer, settings.origins["tokenizer"])
    planned |= {name: Planned(value, settings.origins[name]) for name, value in settings.engine.items()}
    return planned | _tensor_parallel(planned, hardware)


def _tensor_parallel(arguments: Mapping[str, Planned], hardware: Hardware) -> dict[str, Planned]:
    """As many GPUs as can share the model, where nobody said how many; nothing to say for one."""
    groups = math.prod(size.value for _, size in _parallel_sizes(arguments))
    gpus = largest_group(len(hardware.gpus) // groups)
    unsaid = "tensor_parallel_size" not in arguments
    return {"tensor_parallel_size": Planned(gpus, "number of GPUs")} if unsaid and gpus > 1 else {}


def _environment(settings: Settings, profile: Profile, hardware: Hardware) -> dict[str, Planned]:
    planned = {name: Planned(value, "default") for name, value in PROCESS_ENVIRONMENT.items()}
    planned |= {name: Planned(value, "profile") for name, value in profile.engine.environment.items()}
    for tier in profile.tiers_for(hardware):
        planned |= {name: Planned(value, f"tier {tier.name}") for name, value in tier.environment.items()}
    planned |= {name: Planned(value, origin) for name, (value, origin) in settings.derived.items()}
    explicit = {name: Planned(settings.process[name], "environment") for name in planned if name in settings.process}
    return planned | explicit


def _check_requirements(profile: Profile, hardware: Hardware) -> None:
    if not fits(profile, hardware):
        raise HardwareError(
            f"Profile {profile.name!r} needs {profile.requires}; found: {hardware}. "
            "Choose another profile with PROFILE; 'demo' runs everywhere."
        )


def _parallel_sizes(arguments: Mapping[str, Planned]) -> list[tuple[str, Planned]]:
    """The settings that multiply the number of GPUs.

    Raises:
        ConfigurationError: one of them is below 1.
    """
    names = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
    sizes = [(name, arguments[name]) for name in names if name in arguments]
    for name, size in sizes:
        if size.value < 1:
            raise ConfigurationError(f"{name} is {size.value} ({size.origin}); allowed: a whole number of at least 1.")
    return sizes


def _check_parallel(arguments: Mapping[str, Planned], hardware: Hardware) -> None:
    sizes = _parallel_sizes(arguments)
    needed = math.prod(planned.value for _, planned in sizes)
    if hardware.gpus and needed > len(hardware.gpus):
        said = " and ".join(f"{name} {planned.value} ({planned.origin})" for name, planned in sizes)
        raise ConfigurationError(f"{said} need {needed} GPUs, but this process sees {len(hardware.gpus)}.")
