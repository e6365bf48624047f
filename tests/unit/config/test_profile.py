from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from gptoss_bento.config import profile as profiles
from gptoss_bento.config.goal import Goal
from gptoss_bento.config.profile import Condition, Profile, Situation, fits, largest_group, load_profile, profile_names
from gptoss_bento.errors import ConfigurationError
from gptoss_bento.hardware.probe import GIB, Gpu, Hardware, hardware_named
from tests.fakes import A100, EIGHT_GIB, H100, H200, L4, MI300X, RTX_5090, T4, V100, machine
from tests.server import REPOSITORY

MINIMAL: dict[str, Any] = {"name": "p", "description": "d", "model": {"source": "a/b", "served_names": ["x"]}}


def written(folder: Path, **changes: Any) -> str:
    path = folder / "p.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, **changes}))
    return str(path)


# The profiles that come with the bundle


def test_bundle_has_its_three_profiles() -> None:
    assert profile_names() == ["demo", "gpt-oss-120b", "gpt-oss-20b"]


@pytest.mark.parametrize("name", profile_names())
def test_profile_of_the_bundle_is_valid_and_named_like_its_file(name: str) -> None:
    assert load_profile(name).name == name


def test_configs_beside_the_source_are_preferred_over_a_packaged_copy() -> None:
    assert profiles.config_dir() == REPOSITORY / "configs"


def test_installed_wheel_uses_its_packaged_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "_CONFIG_DIRS", (tmp_path / "missing", tmp_path))
    written(tmp_path)

    assert profile_names() == ["p"]
    assert load_profile("p").model.source == "a/b"


# Reading


def test_profile_is_read_from_a_path(tmp_path: Path) -> None:
    profile = load_profile(written(tmp_path))

    assert (profile.name, profile.model.served_names, profile.tiers) == ("p", ("x",), ())
    assert profile.requires.gpus == 0


def test_mistyped_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"no profile 'gpt-oss-20'; did you mean 'gpt-oss-20b'\?"):
        load_profile("gpt-oss-20")


def test_unknown_name_is_answered_with_all_known() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_profile("zzz")

    assert "did you mean" not in str(caught.value)
    assert "demo, gpt-oss-120b, gpt-oss-20b" in str(caught.value)


def test_missing_file_is_a_missing_profile(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no profile"):
        load_profile(str(tmp_path / "absent.yaml"))


def test_file_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("name: [")

    with pytest.raises(ConfigurationError, match=r"broken\.yaml is not valid YAML"):
        load_profile(str(path))


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"model": {"source": "a/b", "served_names": []}}, "model.served_names"),
        ({"model": {"served_names": ["x"]}}, "model.source"),
        ({"nmae": "p"}, "nmae"),
        ({"engine": {"arguments": {"max_model_length": 1}}}, "engine.arguments"),
        ({"tiers": [{"name": "t", "when": {"device": "tpu"}}]}, "tiers.0.when.device"),
        ({"tiers": [{"name": "t", "when": {}, "arguments": {"nope": 1}}]}, "tiers.0.arguments"),
        ({"tiers": [{"name": "t"}]}, "tiers.0.when"),
        ({"engine": {"arguments": {"port": 3000}}}, "engine.arguments"),
        ({"tiers": [{"name": "t", "when": {}, "arguments": {"model": "a/b"}}]}, "tiers.0.arguments"),
        ({"tiers": [{"name": "t", "when": {}, "arguments": {"tensor_parallel_size": 2}}]}, "tiers.0.arguments"),
        ({"tiers": [{"name": "t", "when": {"family": ["hoper"]}}]}, "tiers.0.when.family"),
        ({"goals": {"speed": []}}, "goals.speed"),
        ({"goals": {"latency": [{"arguments": {"nope": 1}}]}}, "goals.latency.0.arguments"),
        ({"limits": [{"when": {}, "argument": "seed"}]}, "limits.0.below"),
        ({"limits": [{"when": {}, "argument": "sed", "below": 1, "reason": ""}]}, "limits.0.argument"),
        ({"requires": {"amd_families": ["cdna9"]}}, "requires.amd_families"),
        ({"model": {"source": "a", "served_names": ["x"], "shape": {"layers": 1}}}, "model.shape.sliding_layers"),
    ],
)
def test_wrong_field_is_named(tmp_path: Path, changes: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_profile(written(tmp_path, **changes))

    assert str(caught.value).startswith(f"p.yaml: {place}")


def test_option_that_vllm_does_not_have_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not options of vLLM: max_model_length"):
        load_profile(written(tmp_path, engine={"arguments": {"max_model_length": 1, "max_model_len": 1}}))


def test_option_that_this_server_decides_is_named(tmp_path: Path) -> None:
    arguments = {"port": 3000, "api_key": ["s3cret"], "max_model_len": 1}

    with pytest.raises(ConfigurationError, match=r"decided by this server: api_key, port$") as caught:
        load_profile(written(tmp_path, engine={"arguments": arguments}))

    assert "s3cret" not in str(caught.value)


def test_problems_of_a_file_are_reported_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_profile(written(tmp_path, name=[], colour="red"))

    assert "name" in str(caught.value)
    assert "colour" in str(caught.value)


# Tiers


@pytest.mark.parametrize(
    ("condition", "hardware", "holds"),
    [
        ({}, machine(), True),
        ({}, machine(T4), True),
        ({"device": "cpu"}, machine(), True),
        ({"device": "cpu"}, machine(T4), False),
        ({"device": "gpu"}, machine(), False),
        ({"device": "gpu"}, machine(T4), True),
        ({"gpus": 2}, machine(T4), False),
        ({"gpus": 2}, machine(T4, T4), True),
        ({"memory_gib_below": 15}, machine(T4), False),  # T4 has 15.0 GiB
        ({"memory_gib_below": 15.1}, machine(T4), True),
        ({"memory_gib_from": 15}, machine(T4), True),
        ({"memory_gib_from": 15.1}, machine(T4), False),
        ({"memory_gib_from": 20, "memory_gib_below": 36}, machine(L4), True),
        ({"memory_gib_below": 20}, machine(H200, T4), True),  # the smallest decides
        ({"device": "gpu", "gpus": 1, "memory_gib_below": 90}, machine(H100), True),
        ({"device": "gpu", "gpus": 1, "memory_gib_below": 90}, machine(H100, H100), False),
    ],
)
def test_condition_holds_if_each_of_its_fields_does(condition: dict[str, Any], hardware: Hardware, holds: bool) -> None:
    assert Condition(**condition).holds(Situation(hardware)) is holds


@pytest.mark.parametrize(
    ("condition", "card", "holds"),
    [
        ({"family": ["hopper"]}, "h100x2", True),
        ({"family": ["hopper"]}, "a100-80", False),
        ({"family": ["ampere", "ada", "blackwell-rtx"]}, "rtx5090", True),
        ({"family": ["blackwell"]}, "rtx5090", False),
        ({"family": ["blackwell"]}, "b300", True),
        ({"family": ["cdna3"]}, "mi325x", True),
        ({"family": ["cdna3"]}, "mi355x", False),
        ({"family": ["cdna4"]}, "mi355xx8", True),
    ],
)
def test_family_is_that_of_the_card(condition: dict[str, Any], card: str, holds: bool) -> None:
    assert Condition(**condition).holds(Situation(hardware_named(card))) is holds


def test_machine_without_gpu_is_of_no_family() -> None:
    assert not Condition(family=("hopper",)).holds(Situation(machine()))


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({"tensor_parallel": 2}, True),
        ({"tensor_parallel": 1}, False),
        ({"tensor_parallel_from": 2}, True),
        ({"tensor_parallel_from": 4}, False),
        ({"pipeline_parallel": 1}, False),
        ({"pipeline_parallel": 4}, True),
        ({"own_model": True}, False),
        ({"own_model": False}, True),
    ],
)
def test_situation_includes_how_gpus_are_shared(condition: dict[str, Any], holds: bool) -> None:
    situation = Situation(machine(*[H100] * 8), tensor_parallel=2, pipeline_parallel=4, own_model=False)

    assert Condition(**condition).holds(situation) is holds


def test_unknown_family_is_named_with_all_known() -> None:
    with pytest.raises(ValueError, match=r"no families of gpus\.yaml: hoper; known: ada, ampere"):
        Condition(family=("hoper",))


def test_tiers_are_in_file_order() -> None:
    tiers = [
        {"name": "any", "when": {}},
        {"name": "cpu", "when": {"device": "cpu"}},
        {"name": "gpu", "when": {"device": "gpu"}},
    ]
    profile = Profile.model_validate({**MINIMAL, "tiers": tiers})

    assert [tier.name for tier in profile.tiers_for(Situation(machine(T4)))] == ["any", "gpu"]


def test_goals_are_in_file_order_if_their_condition_holds() -> None:
    entries = [{"arguments": {"seed": 1}}, {"when": {"device": "cpu"}}, {"arguments": {"seed": 2}}]
    profile = Profile.model_validate({**MINIMAL, "goals": {"latency": entries}})
    situation = Situation(machine(T4))

    assert [entry.arguments["seed"] for entry in profile.goal_for(Goal.LATENCY, situation)] == [1, 2]
    assert profile.goal_for(Goal.THROUGHPUT, situation) == ()


# What profiles share


SHARED: dict[str, Any] = {
    "engine": {"arguments": {"seed": 1, "max_num_seqs": 1}, "environment": {"A": "shared", "B": "shared"}},
    "tiers": [{"name": "shared", "when": {}}],
    "goals": {"latency": [{"arguments": {"seed": 2}}], "benchmark": []},
    "limits": [{"when": {}, "argument": "seed", "below": 9, "reason": "r"}],
}


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of profiles with a shared file."""
    monkeypatch.setattr(profiles, "_CONFIG_DIRS", (tmp_path,))
    (tmp_path / "_shared.yaml").write_text(yaml.safe_dump(SHARED))
    return tmp_path


def test_shared_file_is_no_profile(configs: Path) -> None:
    written(configs)

    assert profile_names() == ["p"]


def test_include_comes_before_the_profiles_own_values(configs: Path) -> None:
    own = {
        "engine": {"arguments": {"seed": 5}, "environment": {"B": "own"}},
        "tiers": [{"name": "own", "when": {}}],
        "goals": {"latency": [{"arguments": {"seed": 6}}], "throughput": [{}]},
    }

    profile = load_profile(written(configs, include=["_shared"], **own))

    assert profile.engine.arguments == {"seed": 5, "max_num_seqs": 1}
    assert profile.engine.environment == {"A": "shared", "B": "own"}
    assert [tier.name for tier in profile.tiers] == ["shared", "own"]
    assert [entry.arguments["seed"] for entry in profile.goals[Goal.LATENCY]] == [2, 6]
    assert set(profile.goals) == {Goal.LATENCY, Goal.THROUGHPUT, Goal.BENCHMARK}
    assert [limit.argument for limit in profile.limits] == ["seed"]


def test_missing_include_is_named(configs: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^p\.yaml: include: there is no _absent\.yaml in "):
        load_profile(written(configs, include=["_absent"]))


def test_wrong_field_of_a_shared_file_is_named_with_that_file(configs: Path) -> None:
    (configs / "_shared.yaml").write_text("name: not-here")

    with pytest.raises(ConfigurationError, match=r"^_shared\.yaml: name: "):
        load_profile(written(configs, include=["_shared"]))


# Requirements


UNNAMED_AMD = Gpu("amd", "AMD GPU", 192 * GIB, "amd")
MI210 = Gpu("amd", "MI210", 64 * GIB, "gfx90a")


@pytest.mark.parametrize(
    ("name", "hardware", "fitting"),
    [
        ("demo", machine(), True),
        ("gpt-oss-20b", machine(), False),
        ("demo", machine(T4), True),
        ("demo", machine(V100, V100, V100), True),
        ("gpt-oss-20b", machine(T4), False),
        ("gpt-oss-20b", machine(*[T4] * 8), False),
        ("gpt-oss-20b", machine(L4), True),
        ("gpt-oss-20b", machine(MI300X), True),
        ("gpt-oss-20b", machine(UNNAMED_AMD), True),
        ("gpt-oss-20b", machine(MI210), False),
        ("gpt-oss-120b", machine(L4), False),
        ("gpt-oss-120b", machine(*[L4] * 3), False),
        ("gpt-oss-120b", machine(*[RTX_5090] * 3), False),  # 96 GiB, of which two cards can be used
        ("gpt-oss-120b", machine(*[RTX_5090] * 4), True),
        ("gpt-oss-120b", machine(H200, *[EIGHT_GIB] * 3), False),  # the smallest bounds all
        ("gpt-oss-120b", machine(*[V100] * 4), False),
        ("gpt-oss-120b", machine(*[L4] * 4), True),
        ("gpt-oss-120b", machine(A100), True),
        ("gpt-oss-120b", machine(H100), True),
        ("gpt-oss-120b", machine(H200), True),
    ],
)
def test_profile_fits_from_its_requirements_on(name: str, hardware: Hardware, fitting: bool) -> None:
    assert fits(load_profile(name), hardware) is fitting


@pytest.mark.parametrize(
    ("gpus", "group"),
    [(0, 0), (1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (7, 4), (8, 8), (9, 8), (16, 8)],
)
def test_largest_group_that_can_share_a_model(gpus: int, group: int) -> None:
    assert largest_group(gpus) == group


def test_requirements_are_printed_in_one_line() -> None:
    assert str(load_profile("gpt-oss-20b").requires) == (
        "1 GPU(s) with together 15 GiB and, from NVIDIA, compute capability 8.0 or newer; from AMD, cdna3 or "
        "cdna4 or rdna4 (13 GiB of MXFP4 weights and a KV cache)"
    )
