"""What the commands of `gptoss-bento` share: the plan for this machine, and what it needs on disk."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from gptoss_bento.artifacts import kernel_cache
from gptoss_bento.artifacts.model_lookup import PLAN_LIMIT_S, finder
from gptoss_bento.config import environment, process_environment
from gptoss_bento.config.goal import Goal
from gptoss_bento.config.profile import AUTOMATIC
from gptoss_bento.config.settings import Settings
from gptoss_bento.doctor.surroundings import DEFAULT_PORT
from gptoss_bento.hardware import probe
from gptoss_bento.planning.plan import EnginePlan, Planned
from gptoss_bento.planning.planner import make_plan
from gptoss_bento.planning.profile_choice import choose_profile
from gptoss_bento.state import default_file
from gptoss_bento.state.default_file import FROM_URL, Owner

if TYPE_CHECKING:
    from gptoss_bento.artifacts.prepare import Artifacts

console = Console()

ProfileOption = Annotated[str | None, typer.Option(help="A profile of configs/, or the path of a .yaml file.")]


def prepare_planned(settings: Settings, planned: EnginePlan) -> Artifacts:
    from gptoss_bento.artifacts import prepare

    return prepare.prepare_planned(settings, planned)


def chosen_name(profile: str | None, settings: Settings) -> str:
    return profile or settings.profile or AUTOMATIC


def job_store(profile: str | None, settings: Settings) -> Planned:
    """Where the jobs of a service that started now would be."""
    if settings.server.job_store_url:
        return Planned("set", FROM_URL)
    first = default_file.first_file(settings.cache_dir / "jobs", chosen_name(profile, settings), settings.model_name)
    found = default_file.look(first, Owner("", settings.server.port or DEFAULT_PORT))
    return Planned(str(found.path), found.origin)


def plan_here(profile: str | None, gpu: str | None = None, goal: Goal | None = None) -> tuple[Settings, EnginePlan]:
    settings = environment.load_settings()
    if goal:
        server = settings.server.model_copy(update={"goal": goal})
        settings = replace(settings, server=server, origins={**settings.origins, "goal": "--goal"})
    machine = probe.hardware_named(gpu) if gpu else probe.probe(settings.visible_devices)
    process_environment.apply_derived(settings)  # where the hub's cache is, before its library is imported
    choice = choose_profile(chosen_name(profile, settings), settings, machine, finder(settings, PLAN_LIMIT_S))
    planned = make_plan(settings, choice.profile, machine, choice.model, choice.origin)
    return settings, planned if gpu else kernel_cache.settled(planned)
