from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from gptoss_bento.config.environment import load_settings
from gptoss_bento.config.profile import AUTOMATIC
from gptoss_bento.errors import ConfigurationError, HardwareError
from gptoss_bento.hardware.probe import Hardware
from gptoss_bento.planning.profile_choice import choose_profile
from tests.configs import LARGE, OTHER, SMALL, chosen, gpt_oss, planned
from tests.fakes import A100, EIGHT_GIB, H100, H200, L4, MI300X, RTX_5090, T4, V100, machine, nvidia

TINY = gpt_oss(2, 4, None, hidden_size=256, intermediate_size=256, num_attention_heads=8, num_key_value_heads=4)
FOLDER = "/models/tuned"


# Without a config.json


@pytest.mark.parametrize(
    ("hardware", "name"),
    [
        (machine(), "demo"),
        (machine(EIGHT_GIB), "demo"),
        (machine(T4), "demo"),  # enough memory, but sm_75
        (machine(V100), "demo"),
        (machine(L4, T4), "demo"),  # the oldest decides
        (machine(L4), "gpt-oss-20b"),
        (machine(A100), "gpt-oss-20b"),
        (machine(RTX_5090), "gpt-oss-20b"),
        (machine(MI300X), "gpt-oss-20b"),
        (machine(*[H100] * 8), "gpt-oss-20b"),
    ],
)
def test_machine_gets_the_profile_that_suits_it(hardware: Hardware, name: str) -> None:
    assert chosen({}, None, hardware).profile.name == name


@pytest.mark.parametrize(
    ("model_name", "hardware", "name"),
    [
        ("openai/gpt-oss-120b", machine(H100), "gpt-oss-120b"),
        ("openai/gpt-oss-120b", machine(L4), "gpt-oss-120b"),  # which the plan then refuses
        ("openai/gpt-oss-20b", machine(), "gpt-oss-20b"),
        ("demo", machine(H100), "demo"),
        ("a/finetune", machine(H100), "gpt-oss-20b"),
        ("a/finetune", machine(), "demo"),
        (None, machine(H100), "gpt-oss-20b"),
    ],
)
def test_model_of_the_bundle_gets_its_own_profile(model_name: str | None, hardware: Hardware, name: str) -> None:
    environ = {"MODEL_NAME": model_name} if model_name else {}

    assert chosen(environ, None, hardware).profile.name == name


def test_profile_of_the_bundle_is_chosen_without_a_lookup_of_its_model() -> None:
    settings = load_settings({"MODEL_NAME": "openai/gpt-oss-120b"})

    choice = choose_profile(AUTOMATIC, settings, machine(H100), lambda *_: pytest.fail("looked up"))

    assert (choice.profile.name, choice.origin) == ("gpt-oss-120b", "")
    assert choice.model.shape == choice.profile.model.shape


def test_model_out_of_reach_is_planned_as_unknown_with_the_reason() -> None:
    plan = planned({"MODEL_NAME": "acme/tuned"})

    assert (plan.profile, plan.profile_origin) == ("gpt-oss-20b", "what the hardware can serve")
    assert (plan.size.value, plan.size.origin) == (None, "not in reach")
    assert plan.memory is None
    assert plan.warnings == ("memory is not estimated: not in reach",)


# By config.json


@pytest.mark.parametrize(
    ("config", "hardware", "name"),
    [
        (SMALL, machine(L4), "gpt-oss-20b"),
        (SMALL, machine(*[H100] * 8), "gpt-oss-20b"),
        (SMALL, machine(), "gpt-oss-20b"),  # which the plan then refuses
        (LARGE, machine(H100), "gpt-oss-120b"),
        (LARGE, machine(L4), "gpt-oss-120b"),
        (gpt_oss(24, 32, None), machine(H100), "gpt-oss-20b"),
        (gpt_oss(24, 32, max_position_embeddings=4096), machine(H100), "gpt-oss-20b"),
    ],
)
def test_model_of_a_known_size_gets_the_profile_of_that_size(
    config: dict[str, Any], hardware: Hardware, name: str
) -> None:
    choice = chosen({"MODEL_NAME": FOLDER}, config, hardware)

    assert (choice.profile.name, choice.origin) == (name, "for a model of the size in config.json")


@pytest.mark.parametrize(
    ("config", "hardware", "name", "gib"),
    [
        (gpt_oss(24, 48), machine(H100), "gpt-oss-20b", "17.5"),
        (gpt_oss(36, 64), machine(H100), "gpt-oss-120b", "32.3"),
        (gpt_oss(48, 256), machine(*[H200] * 8), "gpt-oss-120b", "155.8"),
        (TINY, machine(H100), "gpt-oss-20b", "0.2"),  # the demo's profile keeps to a fifth of the card
        (TINY, machine(), "demo", "0.2"),
        (gpt_oss(36, 64), machine(), "gpt-oss-120b", "32.3"),  # which the plan then refuses
    ],
)
def test_model_of_another_size_gets_the_nearest_profile_with_the_reason(
    config: dict[str, Any], hardware: Hardware, name: str, gib: str
) -> None:
    choice = chosen({"MODEL_NAME": FOLDER}, config, hardware)

    assert choice.profile.name == name
    assert choice.origin == f"nearest in size to the model, which has {gib} GiB of weights"


# By name


def test_profile_that_was_named_is_used_for_a_model_of_its_size_without_a_warning() -> None:
    choice = chosen({"MODEL_NAME": FOLDER}, SMALL, name="gpt-oss-20b")

    assert (choice.profile.name, choice.origin, choice.model.warnings) == ("gpt-oss-20b", "", ())


def test_profile_that_contradicts_the_config_is_used_with_a_warning_and_the_models_memory() -> None:
    plan = planned({"MODEL_NAME": FOLDER}, LARGE, machine(H200), "gpt-oss-20b")

    assert plan.profile == "gpt-oss-20b"
    assert plan.size.origin == f"config.json of {FOLDER}"
    assert plan.memory
    assert plan.memory.weights_gib == pytest.approx(64.4, rel=0.01)
    (warning,) = plan.warnings
    assert warning.startswith("profile 'gpt-oss-20b' describes a model of 20.9 B parameters")
    assert f"config.json of {FOLDER} one of 117 B parameters" in warning
    assert warning.endswith("PROFILE=gpt-oss-120b is made for it")


def test_profile_that_contradicts_another_profiles_model_is_warned_of_too() -> None:
    plan = planned({"MODEL_NAME": "openai/gpt-oss-20b"}, None, machine(H100), "gpt-oss-120b")

    assert plan.served_names.value == ("openai/gpt-oss-20b", "gpt-oss-20b")
    assert "PROFILE=gpt-oss-20b is made for it" in plan.warnings[0]


def test_profile_that_contradicts_a_config_is_refused_with_the_one_that_suits() -> None:
    with pytest.raises(
        HardwareError, match=r"^The model of config\.json of .* does not fit: .*PROFILE=gpt-oss-120b is"
    ):
        planned({"MODEL_NAME": FOLDER}, LARGE, machine(nvidia("some card", 68 * 1024, "sm_90")), "gpt-oss-20b")


def written(folder: Path, source: str, shape: dict[str, Any] | None = None) -> str:
    model = {"source": source, "served_names": ["mine"], "shape": shape}
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", "description": "d", "model": model}))
    return str(path)


def test_profile_of_the_operator_needs_no_shape(tmp_path: Path) -> None:
    plan = planned({}, LARGE, machine(H100, H100), written(tmp_path, FOLDER))

    assert plan.served_names.value == ("mine",)
    assert plan.size.origin == f"config.json of {FOLDER}"
    assert plan.memory
    assert plan.warnings == ()


def test_profile_of_the_operator_with_a_wrong_shape_is_contradicted(tmp_path: Path) -> None:
    shape = chosen({"MODEL_NAME": FOLDER}, SMALL).model.shape
    assert shape is not None
    name = written(tmp_path, FOLDER, shape.model_dump())

    assert "PROFILE=gpt-oss-120b is made for it" in chosen({}, LARGE, name=name).model.warnings[0]
    out_of_reach = chosen({}, None, name=name).model
    assert (out_of_reach.shape, out_of_reach.architecture) == (shape, "")  # so the start checks the architecture


def test_profile_of_the_operator_for_another_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="says Qwen3ForCausalLM"):
        planned({}, OTHER, name=written(tmp_path, FOLDER))
