"""Settings + profile + hardware → what vLLM is started with. Pure: reads nothing, probes nothing, starts nothing."""

from __future__ import annotations

from typing import Any

from gptoss_bento.config.goal import Goal
from gptoss_bento.config.profile import Profile, Situation
from gptoss_bento.config.settings import Settings
from gptoss_bento.hardware.probe import Hardware
from gptoss_bento.planning import model_fit
from gptoss_bento.planning.api_workers import API_WORKERS, api_workers
from gptoss_bento.planning.arguments import checked_arguments
from gptoss_bento.planning.memory_fit import with_memory
from gptoss_bento.planning.model_config import ModelConfig, config_of_profile, unknown_config
from gptoss_bento.planning.parallelism import situation_of
from gptoss_bento.planning.plan import EnginePlan, Planned
from gptoss_bento.planning.process_variables import kernel_folder, process_variables
from gptoss_bento.planning.start_choices import preload, warmup
from gptoss_bento.planning.tools import with_tools


def make_plan(
    settings: Settings, profile: Profile, hardware: Hardware, model: ModelConfig | None = None, profile_origin: str = ""
) -> EnginePlan:
    """Completes the operator's settings by what the profile and the hardware suggest. Explicit settings never change.

    Args:
        model: what is known of the model to serve; without it only the profile's own is known.
        profile_origin: why it is this profile, if the operator did not name it.

    Raises:
        HardwareError: the model cannot run on this hardware.
        ConfigurationError: explicit values contradict each other, or one cannot work here; or it is no GPT-OSS.
    """
    origin, model = settings.origins, model or _assumed_model(settings, profile)
    goal = Planned(settings.goal, origin["goal"]) if settings.goal else Planned(Goal.BALANCED, "default")
    situation = situation_of(settings, profile, hardware, model)
    model_fit.check_architecture(model, settings)
    model_fit.check_hardware(profile, model, situation.own_size, hardware)
    arguments = checked_arguments(settings, profile, situation, goal.value, model)
    planned = EnginePlan(
        profile=profile.name,
        hardware=hardware,
        goal=goal,
        model=_chosen(settings.model_name, origin.get("model"), profile.model.source),
        config=model,
        revision=_chosen(settings.model_revision, origin.get("revision"), profile.model.revision),
        served_names=_served_names(settings, profile, model, situation),
        arguments={name: planned for name, planned in arguments.items() if name != API_WORKERS},
        environment=process_variables(settings, profile, situation, goal.value),
        api_workers=api_workers(arguments, hardware, settings),
        warmup=warmup(settings, hardware),
        preload=preload(settings, arguments, hardware),
        kernel_folder=kernel_folder(settings) if hardware.gpus else None,
        profile_origin=profile_origin,
        warnings=(*settings.warnings, *_goal_warnings(goal, profile), *_model_warnings(model, profile)),
    )
    return with_memory(with_tools(planned, settings), settings, profile)


def _assumed_model(settings: Settings, profile: Profile) -> ModelConfig:
    """The profile's shape, only for the profile's own model."""
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
