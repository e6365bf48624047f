"""Settings + profile + hardware → what vLLM is started with. Pure: reads nothing, probes nothing, starts nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gptoss_bento.config.goal import Goal
from gptoss_bento.config.profile import PARALLEL_SIZES, Engine, Profile, Situation, largest_group
from gptoss_bento.config.settings import Settings
from gptoss_bento.config.vllm_options import known_options
from gptoss_bento.errors import ConfigurationError, HardwareError
from gptoss_bento.hardware.probe import Hardware
from gptoss_bento.planning import model_fit
from gptoss_bento.planning.kernel_key import KERNEL_CACHES, Kernels
from gptoss_bento.planning.memory_estimate import (
    MEMORY_ARGUMENTS,
    Estimate,
    NotEstimableError,
    beyond_estimate,
    estimate,
)
from gptoss_bento.planning.model_config import ModelConfig, config_of_profile, unknown_config
from gptoss_bento.redaction import redacted, redacted_words

# What every GPT-OSS server wants and vLLM does not choose by itself. Source: vLLM's GPT-OSS guide; the parser names
# are those registered in vLLM 0.32.
GPT_OSS_ARGUMENTS: Mapping[str, Any] = {
    "tool_call_parser": "openai",
    "enable_auto_tool_choice": True,
    "reasoning_parser": "openai_gptoss",
    "async_scheduling": True,
}
_START_METHOD = "VLLM_WORKER_MULTIPROC_METHOD"
_HARMONY_ARGUMENTS = ("tool_call_parser", "enable_auto_tool_choice", "reasoning_parser")  # only GPT-OSS writes Harmony
OUTPUT_CHUNK = "VLLM_V1_OUTPUT_PROC_CHUNK_SIZE"
PROCESS_ENVIRONMENT: Mapping[str, str] = {
    "VLLM_NO_USAGE_STATS": "1",  # no telemetry
    _START_METHOD: "spawn",  # as `vllm serve`: a fork would inherit BentoML's sockets and threads
    "VLLM_ENABLE_RESPONSES_API_STORE": "1",  # GET and cancel of /v1/responses/{id} need it
    # All that the engine has put out is taken in before any of it is sent (128 in vLLM). An API server that falls
    # behind then sends fewer, larger messages: 1.8 times the tokens/s at 256 streams; one that keeps up does as before.
    OUTPUT_CHUNK: "1024",
}

# A length that nobody asked for is shortened to what fits, less a margin; a server for fewer than _SHORTEST tokens is
# of no use, so that is refused instead.
_MARGIN = 0.9
_SHORTEST = 1024


@dataclass(frozen=True)
class Planned:
    """A value and where it comes from: default, profile, tier, goal, or the name of a variable."""

    value: Any
    origin: str


@dataclass(frozen=True)
class EnginePlan:
    """Everything the engine is started with. `model` is a hub id, a folder, or `demo`; `config` what is known of it.

    `memory` is None where it cannot be estimated; then one of the `warnings` says why. `kernel_folder` is None without
    a GPU; `kernels` is what it holds, and None for a machine that need not exist.
    """

    profile: str
    hardware: Hardware
    goal: Planned
    model: Planned
    config: ModelConfig
    revision: Planned
    served_names: Planned
    arguments: Mapping[str, Planned]
    environment: Mapping[str, Planned]
    api_workers: Planned
    warmup: Planned
    preload: Planned
    kernel_folder: Planned | None = None
    kernels: Kernels | None = None
    profile_origin: str = ""
    extra_arguments: tuple[str, ...] = ()
    memory: Estimate | None = None
    warnings: tuple[str, ...] = ()

    def argv(self, model: str) -> list[str]:
        """The words that `vllm serve` would get. `model` is the place the weights were prepared at."""
        words = [f"--model={model}", "--served-model-name", *self.served_names.value]
        if self.revision.value and model == self.model.value:
            words.append(f"--revision={self.revision.value}")
        if self.api_workers.value > 1:
            words.append(f"--api-server-count={self.api_workers.value}")
        options = known_options()
        for name, planned in self.arguments.items():
            words += options[name].argv(planned.value)
        return [*words, *self.extra_arguments]

    @property
    def draft(self) -> str | None:
        """The model that speculates, if one does."""
        speculation = self.arguments.get("speculative_config")
        named = speculation.value.get("model") if speculation and isinstance(speculation.value, dict) else None
        return str(named) if named else None

    @property
    def tokenizer(self) -> tuple[str, str | None] | None:
        """A tokenizer of its own and its revision, if the operator named one."""
        named, revision = (self.arguments.get(name) for name in ("tokenizer", "tokenizer_revision"))
        return (str(named.value), revision.value if revision else None) if named else None

    def variables(self, vocabulary_dir: Path) -> dict[str, str]:
        """What the engine's processes need in their environment; openai_harmony looks for its vocabulary there."""
        planned = {name: str(planned.value) for name, planned in self.environment.items()}
        # Ours wins here: the vocabulary was verified, and a folder the operator named without it was warned about.
        return {**planned, "TIKTOKEN_ENCODINGS_BASE": str(vocabulary_dir)}

    @property
    def size(self) -> Planned:
        """The model's shape, if it is known, and how it was told, or why not."""
        shape = self.config.shape
        return Planned(shape, self.config.origin if shape else self.config.unknown)

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """(name, value, origin) of everything planned, for people; what may be a secret is not shown."""
        yield "profile", self.profile, self.profile_origin
        yield "hardware", str(self.hardware), self.hardware.origin
        yield "goal", str(self.goal.value), self.goal.origin
        yield "model", str(self.model.value), self.model.origin
        yield "model size", str(self.size.value or "not known"), self.size.origin
        if self.revision.value:
            yield "revision", str(self.revision.value), self.revision.origin
        yield "served names", ", ".join(self.served_names.value), self.served_names.origin
        yield "API workers", str(self.api_workers.value), self.api_workers.origin
        yield "warm-up requests", "yes" if self.warmup.value else "no", self.warmup.origin
        if self.kernel_folder:
            held = f" ({self.kernels})" if self.kernels else ""
            yield "kernel caches", f"{self.kernel_folder.value}{held}", self.kernel_folder.origin
        yield "engine imports early", "yes" if self.preload.value else "no", self.preload.origin
        for name, planned in self.arguments.items():
            yield f"--{name.replace('_', '-')}", str(redacted(name, planned.value)), planned.origin
        for name, planned in self.environment.items():
            yield name, str(redacted(name, planned.value)), planned.origin
        if self.extra_arguments:
            yield "further arguments", " ".join(redacted_words(self.extra_arguments)), "VLLM_EXTRA_ARGS"
        if self.memory:
            yield "memory", str(self.memory), "estimate"
        for warning in self.warnings:
            yield "warning", warning, ""


def make_plan(
    settings: Settings, profile: Profile, hardware: Hardware, model: ModelConfig | None = None, profile_origin: str = ""
) -> EnginePlan:
    """Completes what the operator said with what the profile and the hardware suggest. What was said is never changed.

    Args:
        model: what is known of the model to serve; without it only the profile's own is known.
        profile_origin: why it is this profile, if the operator did not name it.

    Raises:
        HardwareError: the model cannot run on this hardware.
        ConfigurationError: explicit values contradict each other, or one cannot work here; or it is no GPT-OSS.
    """
    origin, model = settings.origins, model or _assumed_model(settings, profile)
    goal = Planned(settings.goal, origin["goal"]) if settings.goal else Planned(Goal.BALANCED, "default")
    situation = _situation(settings, profile, hardware, model)
    model_fit.check_architecture(model, settings)
    model_fit.check_hardware(profile, model, situation.own_size, hardware)
    arguments = _checked_arguments(settings, profile, situation, goal.value, model)
    planned = EnginePlan(
        profile=profile.name,
        hardware=hardware,
        goal=goal,
        model=_chosen(settings.model_name, origin.get("model"), profile.model.source),
        config=model,
        revision=_chosen(settings.model_revision, origin.get("revision"), profile.model.revision),
        served_names=_served_names(settings, profile, model, situation),
        arguments={name: planned for name, planned in arguments.items() if name != _API_WORKERS},
        environment=_environment(settings, profile, situation, goal.value),
        api_workers=_api_workers(arguments, hardware, settings),
        warmup=_warmup(settings, hardware),
        preload=_preload(settings, situation),
        kernel_folder=kernel_folder(settings) if hardware.gpus else None,
        profile_origin=profile_origin,
        extra_arguments=settings.extra_arguments,
        warnings=(*settings.warnings, *_goal_warnings(goal, profile), *_model_warnings(model, profile)),
    )
    return _with_memory(planned, settings, profile)


def with_kernels(plan: EnginePlan, kernels: Kernels) -> EnginePlan:
    """The plan with what its folder of kernels holds. One that cannot be written is replaced, which a warning says."""
    moved = {}
    if kernels.replacement:
        places = {variable: str(kernels.folder / name) for variable, name in KERNEL_CACHES.items()}
        moved = {
            variable: Planned(str(kernels.replacement / KERNEL_CACHES[variable]), kernels.unwritable)
            for variable, place in places.items()
            if plan.environment[variable].value == place
        }
    environment = {**plan.environment, **moved}
    return replace(plan, kernels=kernels, environment=environment, warnings=(*plan.warnings, *kernels.warnings))


def _assumed_model(settings: Settings, profile: Profile) -> ModelConfig:
    """What the profile says of its own model, and nothing of another."""
    if settings.model_name in (None, profile.model.source):
        return config_of_profile(profile)
    reason = f"{settings.origins['model']} names a model that the profile does not describe"
    return unknown_config(str(settings.model_name), reason)


def _chosen(explicit: Any, variable: str | None, from_profile: Any) -> Planned:
    return Planned(explicit, variable or "environment") if explicit else Planned(from_profile, "profile")


def _served_names(settings: Settings, profile: Profile, model: ModelConfig, situation: Situation) -> Planned:
    """What clients call the model. The profile's names belong to its own weights, not to all of their size."""
    if settings.served_model_names:
        return Planned(settings.served_model_names, settings.origins["served_model_name"])
    if situation.own_model:
        return Planned(profile.model.served_names, "profile")
    variable = settings.origins["model"]
    return Planned(model.names, variable if settings.model_name in model.names else f"from {variable}")


def _model_warnings(model: ModelConfig, profile: Profile) -> tuple[str, ...]:
    if not model.is_other:
        return model.warnings
    other = (
        f"{model.origin} says {model.architecture}: ALLOW_OTHER_ARCHITECTURES lets it be served, untested; tiers and "
        f"goals are those of {profile.name}, and the parsers of GPT-OSS are not used"
    )
    return (*model.warnings, other)


def _goal_warnings(goal: Planned, profile: Profile) -> tuple[str, ...]:
    if goal.value in (Goal.BALANCED, *profile.goals):
        return ()
    return (f"profile {profile.name!r} has no settings for the goal {goal.value} ({goal.origin}); it changes nothing",)


# Arguments: defaults, profile, tiers, goal, operator; the later win


def _checked_arguments(
    settings: Settings, profile: Profile, situation: Situation, goal: Goal, model: ModelConfig
) -> dict[str, Planned]:
    arguments = _within_model(_arguments(settings, profile, situation, goal, model), model, settings)
    _check_parallel(arguments, situation.hardware, model)
    _check_limits(arguments, profile, situation)
    return arguments


def _arguments(
    settings: Settings, profile: Profile, situation: Situation, goal: Goal, model: ModelConfig
) -> dict[str, Planned]:
    planned = _defaults(model)
    for origin, engine in _layers(profile, situation, goal):
        planned = _over(planned, {name: Planned(value, origin) for name, value in engine.arguments.items()})
    # The engine hears SIGTERM too, and would abort everything at once.
    planned["shutdown_timeout"] = Planned(math.ceil(settings.server.drain_timeout), "DRAIN_TIMEOUT")
    planned = _over(planned, _explicit(settings), settings.extra_arguments)
    if "tensor_parallel_size" not in planned and situation.tensor_parallel > 1:
        planned["tensor_parallel_size"] = Planned(situation.tensor_parallel, "number of GPUs")
    return planned


# Each of these says all that the other says; vLLM refuses both together.
_ALTERNATIVES = ({"cudagraph_capture_sizes", "max_cudagraph_capture_size"},)
# Entries of options that are options of their own, too: vLLM refuses both together, or goes by the latter.
_ENTRIES = {
    "attention_config.backend": "attention_backend",
    "compilation_config.cudagraph_capture_sizes": "cudagraph_capture_sizes",
    "compilation_config.max_cudagraph_capture_size": "max_cudagraph_capture_size",
    "kernel_config.enable_flashinfer_autotune": "enable_flashinfer_autotune",
    "kernel_config.moe_backend": "moe_backend",
}


def _over(
    lower: Mapping[str, Planned], upper: Mapping[str, Planned], words: tuple[str, ...] = ()
) -> dict[str, Planned]:
    """The upper layer's arguments over the lower's; of those that say the same, only the upper's stay.

    Args:
        words: of vLLM's command line, which stay beside the upper layer: `--option.entry` of an option may be said so.
    """
    entries = {
        f"{name}.{entry}" for name, each in upper.items() if isinstance(each.value, dict) for entry in each.value
    }
    entries |= {word.partition("=")[0].lstrip("-").replace("-", "_") for word in words}
    said = upper.keys() | {_ENTRIES[entry] for entry in entries & _ENTRIES.keys()}
    replaced = said.union(*(names for names in _ALTERNATIVES if names & said))
    return {name: planned for name, planned in lower.items() if name not in replaced} | dict(upper)


def _defaults(model: ModelConfig) -> dict[str, Planned]:
    left_out = _HARMONY_ARGUMENTS if model.is_other else ()
    wanted = {name: value for name, value in GPT_OSS_ARGUMENTS.items() if name not in left_out}
    return {name: Planned(value, "default for GPT-OSS") for name, value in wanted.items()}


def _within_model(arguments: dict[str, Planned], model: ModelConfig, settings: Settings) -> dict[str, Planned]:
    """A length beyond the model's is refused if it was said, and lowered to the model's if the profile suggests it.

    The length of another architecture is left to vLLM.

    Raises:
        ConfigurationError: the operator's is too long.
    """
    length = arguments.get("max_model_len")
    if model.is_other and "max_model_len" not in settings.engine:
        return {name: planned for name, planned in arguments.items() if name != "max_model_len"}
    if length is None or model.shape is None or "hf_overrides" in settings.engine:
        return arguments
    if "max_model_len" in settings.engine:
        model_fit.check_length(model, length.value, length.origin, settings.process)
    elif model_fit.longer_than_model(model, length.value):
        origin = f"max_position_embeddings, {model.origin}; {length.origin} has {length.value}"
        return {**arguments, "max_model_len": Planned(model.shape.max_length, origin)}
    return arguments


def _environment(settings: Settings, profile: Profile, situation: Situation, goal: Goal) -> dict[str, Planned]:
    planned = {name: Planned(value, "default") for name, value in PROCESS_ENVIRONMENT.items()} | _patience(settings)
    if situation.hardware.gpus:
        planned |= _kernel_caches(settings)
    for origin, engine in _layers(profile, situation, goal):
        planned |= {name: Planned(value, origin) for name, value in engine.environment.items()}
    planned |= {name: Planned(value, origin) for name, (value, origin) in settings.derived.items()}
    explicit = {name: Planned(settings.process[name], "environment") for name in planned if name in settings.process}
    return planned | explicit


def kernel_folder(settings: Settings) -> Planned:
    """One folder for all that is compiled at a start, so that the next one finds it."""
    named = settings.server.kernel_cache_dir
    return Planned(named, "KERNEL_CACHE_DIR") if named else Planned(settings.cache_dir / "kernels", "default")


def _kernel_caches(settings: Settings) -> dict[str, Planned]:
    folder = kernel_folder(settings)
    planned = {variable: Planned(str(folder.value / name), folder.origin) for variable, name in KERNEL_CACHES.items()}
    # vLLM then also keeps how much memory was left for the KV cache, and need not measure it again.
    return planned | {"VLLM_ENABLE_STARTUP_PLAN": Planned("1", "default")}


def _warmup(settings: Settings, hardware: Hardware) -> Planned:
    if settings.server.warmup is not None:
        return Planned(settings.server.warmup, "WARMUP")
    return Planned(bool(hardware.gpus), "default with a GPU" if hardware.gpus else "default without a GPU")


def _preload(settings: Settings, situation: Situation) -> Planned:
    """Whether the engine's process is forked from one that has imported vLLM, rather than spawned.

    Off unless it is asked for: it was tried on CPUs alone. There vLLM sets variables that a program must have before it
    begins, so that it is refused.

    Raises:
        ConfigurationError: it was asked for where it cannot be.
    """
    if not settings.server.engine_preload:
        return Planned(False, "default")
    if not situation.hardware.gpus:
        raise ConfigurationError("ENGINE_PRELOAD is set, but there is no GPU; vLLM's engine for CPUs must be spawned.")
    if _START_METHOD in settings.process:
        raise ConfigurationError(f"ENGINE_PRELOAD is set, and so is {_START_METHOD}; each says how the engine starts.")
    return Planned(True, "ENGINE_PRELOAD")


def _layers(profile: Profile, situation: Situation, goal: Goal) -> list[tuple[str, Engine]]:
    """(origin, what it suggests), the later winning."""
    tiers = [(f"tier {tier.name}", tier) for tier in profile.tiers_for(situation)]
    return [
        ("profile", profile.engine),
        *tiers,
        *((f"goal {goal}", entry) for entry in profile.goal_for(goal, situation)),
    ]


def _explicit(settings: Settings) -> dict[str, Planned]:
    planned = {name: Planned(value, settings.origins[name]) for name, value in settings.engine.items()}
    if settings.tokenizer:
        planned["tokenizer"] = Planned(settings.tokenizer, settings.origins["tokenizer"])
    return planned


# How many processes answer HTTP

_API_WORKERS = "api_server_count"  # vLLM's option; `vllm serve` alone acts on it, its application does not
_ALONE = {
    "data_parallel_size": "several engines",
    "enable_elastic_ep": "an elastic number of engines",
    "enable_fault_tolerance": "vLLM's fault tolerance",
}


def _api_workers(arguments: Mapping[str, Planned], hardware: Hardware, settings: Settings) -> Planned:
    """What was said is used or refused; what is only suggested is lowered to what the cores can carry.

    Raises:
        ConfigurationError: several were asked for together with something that allows only one.
    """
    wanted = arguments.get(_API_WORKERS, Planned(1, "default"))
    if wanted.value == 1:
        return wanted
    explicit = _API_WORKERS in settings.engine
    if reason := _only_one(arguments, settings):
        if explicit:
            raise ConfigurationError(f"{wanted.origin} is {wanted.value}, but {reason} needs 1.")
        return Planned(1, f"{reason}; {wanted.origin} has {wanted.value}")
    # The engine and each GPU keep a core busy with waiting, as does each worker under load.
    spare = max(1, hardware.cpu_cores - 1 - len(hardware.gpus)) if hardware.cpu_cores else wanted.value
    if explicit or spare >= wanted.value:
        return wanted
    return Planned(spare, f"{hardware.cpu_cores} CPU cores; {wanted.origin} has {wanted.value}")


def _only_one(arguments: Mapping[str, Planned], settings: Settings) -> str | None:
    """What does not work with several API workers, if the plan has it. Adapters would be loaded into one of them."""
    for name, what in _ALONE.items():
        if name in arguments and arguments[name].value not in (False, 1):
            return f"{what} ({arguments[name].origin})"
    loading = settings.process.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "0").strip().lower()
    return "VLLM_ALLOW_RUNTIME_LORA_UPDATING" if loading in ("1", "true") else None


_DAY_S = 86_400


def _patience(settings: Settings) -> dict[str, Planned]:
    """vLLM's own limit of a start, beyond ours, which alone ends one that hangs.

    The same for any number of workers and any usual VLLM_STARTUP_TIMEOUT: vLLM has it in the key under which it keeps
    what torch.compile made.
    """
    limit = max(_DAY_S, settings.server.vllm_startup_timeout)
    return {"VLLM_ENGINE_READY_TIMEOUT_S": Planned(str(limit), "beyond VLLM_STARTUP_TIMEOUT")}


# How the GPUs are shared


def _situation(settings: Settings, profile: Profile, hardware: Hardware, model: ModelConfig) -> Situation:
    """What conditions ask about. As many GPUs share the model as can, where nobody said how many."""
    own_model = model_fit.is_own_model(profile, model, settings)
    said = {name: Planned(value, "profile") for name, value in profile.engine.arguments.items()} | _explicit(settings)
    sizes = {name: planned.value for name, planned in _parallel_sizes(said)}
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


def _parallel_sizes(arguments: Mapping[str, Planned]) -> list[tuple[str, Planned]]:
    """The settings that multiply the number of GPUs.

    Raises:
        ConfigurationError: one of them is below 1.
    """
    sizes = [(name, arguments[name]) for name in PARALLEL_SIZES if name in arguments]
    for name, size in sizes:
        if size.value < 1:
            raise ConfigurationError(f"{name} is {size.value} ({size.origin}); allowed: a whole number of at least 1.")
    return sizes


def _check_parallel(arguments: Mapping[str, Planned], hardware: Hardware, model: ModelConfig) -> None:
    sizes = _parallel_sizes(arguments)
    if model.shape and (tensor := arguments.get("tensor_parallel_size")):
        model_fit.check_sharing(model.shape, tensor.value, tensor.origin)
    needed = math.prod(planned.value for _, planned in sizes)
    if hardware.gpus and needed > len(hardware.gpus):
        said = " and ".join(f"{name} {planned.value} ({planned.origin})" for name, planned in sizes)
        raise ConfigurationError(f"{said} need {needed} GPUs, but this process sees {len(hardware.gpus)}.")


# What cannot work


def _check_limits(arguments: Mapping[str, Planned], profile: Profile, situation: Situation) -> None:
    broken = [
        f"{limit.argument} is {planned.value} ({planned.origin}); allowed here: below {limit.below:g}. {limit.reason}"
        for limit in profile.limits
        if limit.when.holds(situation)
        and (planned := arguments.get(limit.argument))
        and isinstance(planned.value, (int, float))
        and planned.value >= limit.below
    ]
    if broken:
        raise ConfigurationError("\n".join(broken))


# Memory


def _with_memory(plan: EnginePlan, settings: Settings, profile: Profile) -> EnginePlan:
    """The plan with its estimate. Where a full-length request does not fit: shorter or refused, never in silence."""
    try:
        memory = _estimate(plan, profile)
    except NotEstimableError as error:
        return replace(plan, warnings=(*plan.warnings, f"memory is not estimated: {error}"))
    if memory.fits:
        return replace(plan, memory=memory)
    explicit = {name: planned for name, planned in _explicit(settings).items() if name in MEMORY_ARGUMENTS}
    if memory.longest < _SHORTEST or "max_model_len" in explicit:
        raise _too_large(plan, memory, explicit)
    return _shortened(plan, memory, lambda shorter: _estimate(shorter, profile))


def _estimate(plan: EnginePlan, profile: Profile) -> Estimate:
    """Raises NotEstimableError, also for a model of which too little is known and for words beside the plan."""
    shape = plan.config.shape
    if shape is None or plan.config.beyond_estimate:
        raise NotEstimableError(plan.config.beyond_estimate)
    if said := beyond_estimate(plan.extra_arguments):
        raise NotEstimableError(f"VLLM_EXTRA_ARGS sets {', '.join(said)}")
    if profile.model.shape:  # config.json does not tell of a draft; the profile's is made for about this size
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
    """With the longest request that fits in place of a length that nobody asked for."""
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
    said = ", ".join(f"{planned.origin}={planned.value}" for planned in explicit.values())
    left = f"{max(0.0, memory.kv_cache_gib):.1f} GiB are left for the KV cache of {plan.hardware} (estimated: {memory})"
    if memory.longest < _SHORTEST:
        own = plan.config.origin == f"profile {plan.profile}"
        what = f"Profile {plan.profile!r}" if own else f"The model of {plan.config.origin}"
        text = ". ".join([f"{what} does not fit: {left}", *plan.config.warnings]) + "."
        return ConfigurationError(f"{text} Set were {said}.") if said else HardwareError(text)
    return ConfigurationError(
        f"max_model_len {memory.max_model_len} does not fit: one request of that length needs {memory.request_gib:.1f} "
        f"GiB, but {left}. A value that would fit: {_comfortable(memory)}. Set were {said}."
    )
