"""vLLM's arguments: defaults, profile, tiers, goal, operator; the later win. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gptoss_bento.config.goal import Goal
from gptoss_bento.config.profile import Profile, Situation
from gptoss_bento.config.settings import Settings
from gptoss_bento.errors import ConfigurationError
from gptoss_bento.planning import model_fit
from gptoss_bento.planning.model_config import ModelConfig
from gptoss_bento.planning.parallelism import check_parallel
from gptoss_bento.planning.plan import Planned
from gptoss_bento.planning.value_origins import set_explicitly, suggestions

_PARSER = "openai_gptoss"
_END = "reasoning_end_str"
# What every GPT-OSS server wants and vLLM does not choose by itself. Source: vLLM's GPT-OSS guide; the parser names
# are those registered in vLLM 0.32.
GPT_OSS_ARGUMENTS: Mapping[str, Any] = {
    "tool_call_parser": "openai",
    "enable_auto_tool_choice": True,
    "reasoning_parser": _PARSER,
    # Where a budget of reasoning tokens counts, and what ends it: that parser has no such strings, so vLLM would refuse
    # each budget. Not the final message's beginning as well: after it the model could call no tool.
    "reasoning_config": {"reasoning_start_str": "<|channel|>analysis<|message|>", _END: "<|end|>"},
    "exclude_tools_when_tool_choice_none": True,
    "tool_strict_level": "parameter",
    "enable_prompt_tokens_details": True,  # usage.prompt_tokens_details.cached_tokens, as OpenAI's API has it
    "async_scheduling": True,
}
_HARMONY_ARGUMENTS = GPT_OSS_ARGUMENTS.keys() - {"async_scheduling", "enable_prompt_tokens_details"}
"""Only GPT-OSS writes Harmony."""


def checked_arguments(
    settings: Settings, profile: Profile, situation: Situation, goal: Goal, model: ModelConfig
) -> dict[str, Planned]:
    """The options of vLLM, each with its origin.

    Raises:
        ConfigurationError: the operator's length, sharing or another value cannot work here.
    """
    arguments = _within_model(_arguments(settings, profile, situation, goal, model), model, settings)
    check_parallel(arguments, situation.hardware, model)
    _check_limits(arguments, profile, situation)
    _check_adapters(arguments)
    _check_reasoning(arguments)
    return arguments


def _arguments(
    settings: Settings, profile: Profile, situation: Situation, goal: Goal, model: ModelConfig
) -> dict[str, Planned]:
    planned = _defaults(model)
    for origin, engine in suggestions(profile, situation, goal):
        planned = _over(planned, {name: Planned(value, origin) for name, value in engine.arguments.items()})
    # The engine receives SIGTERM too, and would abort everything immediately.
    planned["shutdown_timeout"] = Planned(math.ceil(settings.server.drain_timeout), "DRAIN_TIMEOUT")
    planned = _over(planned, set_explicitly(settings))
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
    "kernel_config.linear_backend": "linear_backend",
    "kernel_config.moe_backend": "moe_backend",
    "kernel_config.sparse_indexer_topk_backend": "sparse_indexer_topk_backend",
    "structured_outputs_config.reasoning_parser": "reasoning_parser",
    "structured_outputs_config.reasoning_parser_plugin": "reasoning_parser_plugin",
}


def _over(lower: Mapping[str, Planned], upper: Mapping[str, Planned]) -> dict[str, Planned]:
    """The upper layer's arguments over the lower's; of those that say the same, only the upper's stay."""
    entries = {
        f"{name}.{entry}" for name, each in upper.items() if isinstance(each.value, dict) for entry in each.value
    }
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


def _check_adapters(arguments: Mapping[str, Planned]) -> None:
    adapters, enabled = arguments.get("lora_modules"), arguments.get("enable_lora")
    if adapters and not (enabled and enabled.value):
        why = f"enable_lora is false ({enabled.origin})" if enabled else "vLLM's LoRA is off"
        raise ConfigurationError(f"lora_modules is set ({adapters.origin}), but {why}; set ENABLE_LORA=true.")


def _check_reasoning(arguments: Mapping[str, Planned]) -> None:
    """GPT-OSS's parser has no strings of its own: with one of them alone vLLM would refuse every budget.

    And reasoning is over for vLLM only where it finds the whole end string: by another one than the model's own, the
    budget goes on counting in what follows, and truncates a call of a tool or an answer.
    """
    strings, parser = arguments.get("reasoning_config"), arguments.get("reasoning_parser")
    if strings is None or not isinstance(strings.value, dict) or not parser or parser.value != _PARSER:
        return
    needed = GPT_OSS_ARGUMENTS["reasoning_config"]
    missing = [name for name in needed if not strings.value.get(name)]
    if len(missing) == 1:
        raise ConfigurationError(
            f"reasoning_config ({strings.origin}) has no {missing[0]}, and budgets of reasoning need both; GPT-OSS's "
            f"is {needed[missing[0]]!r}. {{}} turns budgets off."
        )
    end, own = strings.value.get(_END), needed[_END]
    if end and end != own:
        raise ConfigurationError(
            f"reasoning_config ({strings.origin}) has the {_END} {end!r}; it must be {own!r}, with which GPT-OSS ends "
            "its reasoning: by another string a budget would count on, and truncate calls of tools and answers."
        )
