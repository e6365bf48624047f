from __future__ import annotations

import pytest

from gptoss_bento.planning.plan import Planned
from tests.unit.planning.plans import planned


def test_model_of_the_profile_is_the_model() -> None:
    plan = planned({})

    assert plan.model == Planned("org/model", "profile")
    assert plan.revision == Planned("r1", "profile")


@pytest.mark.parametrize("variable", ["MODEL_NAME", "MODEL"])
def test_model_named_by_the_operator_wins_over_the_profile(variable: str) -> None:
    assert planned({variable: "mine/model"}).model == Planned("mine/model", variable)


@pytest.mark.parametrize("variable", ["MODEL_REVISION", "REVISION"])
def test_revision_named_by_the_operator_wins_over_the_profile(variable: str) -> None:
    assert planned({variable: "r2"}).revision == Planned("r2", variable)


def test_profile_names_the_model_for_clients() -> None:
    assert planned({}).served_names == Planned(("first", "second"), "profile")


def test_model_of_another_name_is_served_under_its_own_name() -> None:
    assert planned({"MODEL_NAME": "mine/model"}).served_names == Planned(("mine/model",), "MODEL_NAME")


def test_profiles_model_named_again_keeps_the_profiles_names() -> None:
    assert planned({"MODEL_NAME": "org/model"}).served_names == Planned(("first", "second"), "profile")


def test_names_set_by_the_operator_win_over_those_of_model_and_profile() -> None:
    plan = planned({"MODEL_NAME": "mine/model", "OPENAI_SERVED_MODEL_NAME_OVERRIDE": "a,b"})

    assert plan.served_names == Planned(("a", "b"), "OPENAI_SERVED_MODEL_NAME_OVERRIDE")


@pytest.mark.parametrize("variable", ["TOKENIZER_NAME", "TOKENIZER"])
def test_tokenizer_named_by_the_operator_is_planned(variable: str) -> None:
    assert planned({variable: "a/tokenizer"}).arguments["tokenizer"] == Planned("a/tokenizer", variable)


def test_tokenizer_is_not_planned_unless_named() -> None:
    assert "tokenizer" not in planned({}).arguments
