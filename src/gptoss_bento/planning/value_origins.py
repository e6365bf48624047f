"""Who suggests values, and what the operator set. Pure."""

from __future__ import annotations

from gptoss_bento.config.goal import Goal
from gptoss_bento.config.profile import Engine, Profile, Situation
from gptoss_bento.config.settings import Settings
from gptoss_bento.planning.plan import Planned


def suggestions(profile: Profile, situation: Situation, goal: Goal) -> list[tuple[str, Engine]]:
    """(origin, what it suggests), the later winning."""
    tiers = [(f"tier {tier.name}", tier) for tier in profile.tiers_for(situation)]
    return [
        ("profile", profile.engine),
        *tiers,
        *((f"goal {goal}", entry) for entry in profile.goal_for(goal, situation)),
    ]


def set_explicitly(settings: Settings) -> dict[str, Planned]:
    """The options that the operator set, each with its variable."""
    planned = {name: Planned(value, settings.origins[name]) for name, value in settings.engine.items()}
    if settings.tokenizer:
        planned["tokenizer"] = Planned(settings.tokenizer, settings.origins["tokenizer"])
    return planned
