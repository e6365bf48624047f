from __future__ import annotations

from gptoss_bento.config.environment import load_settings
from gptoss_bento.config.goal import Goal
from gptoss_bento.config.profile import Situation, load_profile
from gptoss_bento.planning.plan import Planned
from gptoss_bento.planning.value_origins import set_explicitly, suggestions
from tests.fakes import H100, machine
from tests.unit.planning.plans import PROFILE, TIER


def test_origins_of_suggestions_are_profile_tiers_and_goal_in_this_order() -> None:
    profile = load_profile("gpt-oss-20b")
    origins = [origin for origin, _ in suggestions(profile, Situation(machine(H100)), Goal.THROUGHPUT)]

    assert list(dict.fromkeys(origin.split()[0] for origin in origins)) == ["profile", "tier", "goal"]
    assert origins[-1] == "goal throughput"


def test_suggestions_of_tiers_for_other_hardware_are_left_out() -> None:
    found = suggestions(PROFILE, Situation(machine(H100)), Goal.BALANCED)

    assert [origin for origin, _ in found] == ["profile", TIER, "tier last"]
    assert found[1][1].arguments == {"max_model_len": 2048, "gpu_memory_utilization": 0.5}


def test_origin_of_an_explicit_value_is_the_variable_that_won() -> None:
    environ = {
        "MAX_NUM_SEQS": "4",
        "SEED": "1",
        "VLLM_EXTRA_ARGS": "--seed 2 -cc.mode 3",
        "TOKENIZER": "org/tokenizer",
        "API_WORKERS": "2",
    }

    assert set_explicitly(load_settings(environ)) == {
        "max_num_seqs": Planned(4, "MAX_NUM_SEQS"),
        "seed": Planned(2, "VLLM_EXTRA_ARGS"),
        "compilation_config": Planned({"mode": 3}, "VLLM_EXTRA_ARGS"),
        "tokenizer": Planned("org/tokenizer", "TOKENIZER"),
        "api_server_count": Planned(2, "API_WORKERS"),
    }
