from __future__ import annotations

import pytest

from gptoss_bento.config.environment import load_settings
from gptoss_bento.config.goal import Goal, parse_goal
from gptoss_bento.errors import ConfigurationError


@pytest.mark.parametrize("text", ["latency", " Latency ", "LATENCY"])
def test_goal_is_read_in_any_case(text: str) -> None:
    assert parse_goal(text) is Goal.LATENCY


def test_mistyped_goal_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"latency, balanced, throughput, benchmark; did you mean 'throughput'\?"):
        parse_goal("troughput")


def test_goal_that_is_unknown_is_answered_with_all_goals() -> None:
    with pytest.raises(ValueError, match=r"^latency, balanced, throughput, benchmark$"):
        parse_goal("zzz")


def test_variable_goal_is_read_with_its_origin() -> None:
    settings = load_settings({"GOAL": "throughput"})

    assert settings.goal is Goal.THROUGHPUT
    assert settings.origins["goal"] == "GOAL"


@pytest.mark.parametrize("environ", [{}, {"GOAL": ""}, {"GOAL": "none"}])
def test_goal_that_is_empty_is_none(environ: dict[str, str]) -> None:
    assert load_settings(environ).goal is None


def test_wrong_goal_stops_with_variable_and_value() -> None:
    with pytest.raises(ConfigurationError, match=r"^GOAL: the value 'fast' is not allowed; allowed: latency, balanced"):
        load_settings({"GOAL": "fast"})
