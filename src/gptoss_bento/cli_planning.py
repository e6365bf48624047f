"""What the commands of `gptoss-bento` share: the plan for this machine, and what it needs on disk."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from gptoss_bento import environment, hardware
from gptoss_bento.goal import Goal
from gptoss_bento.plan import EnginePlan, make_plan
from gptoss_bento.profile import AUTOMATIC, automatic_profile, load_profile
from gptoss_bento.settings import Settings

if TYPE_CHECKING:
    from gptoss_bento.artifacts import Artifacts

console = Console()

ProfileOption = Annotated[str | None, typer.Option(help="A profile of configs/, or the path of a .yaml file.")]


def prepare_planned(settings: Settings, planned: EnginePlan) -> Artifacts:
    from gptoss_bento import artifacts

    environment.apply_derived(settings)  # as the service does: the model goes where the service will look for it
    return artifacts.prepare(
        planned.model.value,
        planned.revision.value,
        settings.cache_dir,
        settings.vocabulary_dir,
        planned.draft,
        tokenizer=planned.tokenizer,
        bento_models=settings.bento_models,
    )


def chosen_name(profile: str | None, settings: Settings) -> str:
    return profile or settings.profile or AUTOMATIC


def plan_here(profile: str | None, gpu: str | None = None, goal: Goal | None = None) -> tuple[Settings, EnginePlan]:
    settings = environment.load_settings()
    if goal:
        server = settings.server.model_copy(update={"goal": goal})
        settings = replace(settings, server=server, origins={**settings.origins, "goal": "--goal"})
    machine = hardware.hardware_named(gpu) if gpu else hardware.probe(settings.visible_devices)
    name = chosen_name(profile, settings)
    chosen = load_profile(automatic_profile(machine, settings.model_name) if name == AUTOMATIC else name)
    return settings, make_plan(settings, chosen, machine)
