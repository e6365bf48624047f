"""Where a plan's values come from, and under which origin: who suggests them, and what the operator set. Pure.

From the lowest to the highest: the default for GPT-OSS, the profile, its tiers, its goal, the operator. The layers are
laid over each other in planning/arguments.py (vLLM's options) and planning/process_variables.py (variables). What is
changed after that carries its own origin: the length in planning/memory_fit.py, the workers in planning/api_workers.py.
"""

from __future__ import annotations

from gptoss_bento.config.goal import Goal
from gptoss_bento.config.profile import Engine, Profile, Situation
from gptoss_bento.config.settings import Settings
from gptoss_bento.planning.plan import Planned


def suggestions(profile: Profile, situation: Situation, goal: Goal) -> list[tuple[str, Engine]]:
    """(origin, what it suggests) of profile, tiers and goal; the later win."""
    tiers = [(f"tier {tier.name}", tier) for tier in profile.tiers_for(situation)]
    return [
        ("profile", profile.engine),
        *tiers,
        *((f"goal {goal}", entry) for entry in profile.goal_for(goal, situation)),
    ]


def set_explicitly(settings: Settings) -> dict[str, Planned]:
    """The options that the operator set, each with its variable as its origin. They win over all suggestions."""
    planned = {name: Planned(value, settings.origins[name]) for name, value in settings.engine.items()}
    if settings.tokenizer:
        planned["tokenizer"] = Planned(settings.tokenizer, settings.origins["tokenizer"])
    return planned
