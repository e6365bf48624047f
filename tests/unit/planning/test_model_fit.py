"""What a model asks for by its own dimensions, as the plan has it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gptoss_bento.errors import ConfigurationError, HardwareError
from gptoss_bento.hardware.probe import Gpu, Hardware
from gptoss_bento.planning.model_config import unknown_config
from tests.configs import LARGE, OTHER, SMALL, gpt_oss, planned
from tests.fakes import A100, H100, L4, RTX_5090, T4, V100, machine, nvidia

FOLDER = "/models/tuned"


# What follows for the plan


@pytest.mark.parametrize(("hub_id", "names"), [("acme/tuned", ("acme/tuned",)), (FOLDER, ("tuned",))])
def test_served_name_of_a_fine_tune_is_its_own_and_never_a_path(hub_id: str, names: tuple[str, ...]) -> None:
    assert planned({"MODEL_NAME": hub_id}, SMALL).served_names.value == names


def test_served_name_of_a_folder_that_is_not_there_is_no_path() -> None:
    assert planned({"MODEL_NAME": FOLDER}).served_names.value == ("tuned",)
    assert planned({"MODEL_NAME": FOLDER}).served_names.origin == "from MODEL_NAME"


def test_served_name_set_explicitly_wins() -> None:
    environ = {"MODEL_NAME": FOLDER, "OPENAI_SERVED_MODEL_NAME_OVERRIDE": "mine"}

    assert planned(environ, SMALL).served_names.value == ("mine",)


def test_hub_snapshot_of_the_published_model_is_that_model() -> None:
    snapshot = "/hub/models--openai--gpt-oss-20b/snapshots/0123456789abcdef0123456789abcdef01234567"
    plan = planned({"MODEL_NAME": snapshot, "GOAL": "latency"}, SMALL)

    assert plan.served_names.value == ("openai/gpt-oss-20b", "gpt-oss-20b")
    assert plan.draft == "RedHatAI/gpt-oss-20b-speculator.eagle3"


def test_fine_tune_of_the_published_size_is_planned_as_that_but_without_its_draft() -> None:
    tuned, published = planned({"MODEL_NAME": FOLDER, "GOAL": "latency"}, SMALL), planned({"GOAL": "latency"})

    same = {name: value for name, value in published.arguments.items() if name != "speculative_config"}
    assert tuned.arguments == same
    assert tuned.draft is None


def test_limits_of_the_profile_hold_for_a_fine_tune_of_its_size() -> None:
    with pytest.raises(ConfigurationError, match="On two H100s"):
        planned({"MODEL_NAME": FOLDER, "GPU_MEMORY_UTILIZATION": "0.95"}, LARGE, machine(H100, H100))


@pytest.mark.parametrize("profile", ["gpt-oss-20b", "gpt-oss-120b"])
def test_memory_of_a_fine_tune_is_that_of_the_published_model(profile: str) -> None:
    config = {"gpt-oss-20b": SMALL, "gpt-oss-120b": LARGE}[profile]

    assert planned({"MODEL_NAME": FOLDER}, config).memory == planned({}, name=profile).memory


@pytest.mark.parametrize(
    ("config", "hardware", "needs"),
    [
        (SMALL, machine(T4), "Profile 'gpt-oss-20b' needs 1 GPU"),
        (SMALL, machine(), "Profile 'gpt-oss-20b' needs 1 GPU"),
        (
            gpt_oss(36, 64),
            machine(L4),
            f"The model of config.json of {FOLDER} needs 1 GPU(s) with together 32.3 GiB",
        ),
        (gpt_oss(36, 64), machine(), "The model of config.json of /models/tuned needs 1 GPU"),
        (gpt_oss(24, 32, None), machine(L4), "together 38.9 GiB (the weights, by"),
        (gpt_oss(24, 48), machine(V100), "compute capability 8.0"),
    ],
)
def test_hardware_below_what_the_model_needs_is_refused(config: dict[str, Any], hardware: Hardware, needs: str) -> None:
    with pytest.raises(HardwareError) as caught:
        planned({"MODEL_NAME": FOLDER}, config, hardware)

    assert needs in str(caught.value)


def test_hardware_is_asked_for_by_the_model_rather_than_by_the_profile() -> None:
    plan = planned({"MODEL_NAME": FOLDER}, gpt_oss(36, 64), machine(*[L4] * 2))  # the 120b's profile needs 75 GiB

    assert plan.profile == "gpt-oss-120b"
    assert plan.memory
    assert plan.memory.fits


@pytest.mark.parametrize(
    ("kv_heads", "gpus", "size"), [(8, 8, 8), (4, 8, 4), (2, 8, 2), (1, 8, None), (6, 4, 2), (8, 3, 2)]
)
def test_gpus_share_the_model_as_its_heads_allow(kv_heads: int, gpus: int, size: int | None) -> None:
    config = gpt_oss(24, 32, num_attention_heads=48, num_key_value_heads=kv_heads)
    plan = planned({"MODEL_NAME": FOLDER}, config, machine(*[H100] * gpus))

    tensor = plan.arguments.get("tensor_parallel_size")
    assert (tensor and tensor.value) == size


def test_gpus_that_cannot_share_the_model_are_refused_with_what_can() -> None:
    with pytest.raises(ConfigurationError) as caught:
        planned({"TENSOR_PARALLEL_SIZE": "3"}, hardware=machine(*[H100] * 4))

    assert str(caught.value) == (
        "tensor_parallel_size is 3 (TENSOR_PARALLEL_SIZE), which does not divide the model's 64 heads and 8 key-value "
        "heads; allowed: 1, 2, 4, 8."
    )


def test_length_that_the_profile_suggests_is_lowered_to_the_models() -> None:
    plan = planned({"MODEL_NAME": FOLDER}, gpt_oss(24, 32, max_position_embeddings=65536))

    length = plan.arguments["max_model_len"]
    assert length.value == 65536
    assert length.origin == f"max_position_embeddings, config.json of {FOLDER}; profile has 131072"


@pytest.mark.parametrize("text", ["131073", "200k"])
def test_length_beyond_the_models_is_refused_with_the_variable(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^max_model_len is .* \(MAX_MODEL_LEN\), but the model has 131072"):
        planned({"MAX_MODEL_LEN": text})


@pytest.mark.parametrize(
    "more", [{"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}, {"HF_OVERRIDES": '{"max_position_embeddings": 262144}'}]
)
def test_length_beyond_the_models_is_used_if_the_operator_allows_it(more: dict[str, str]) -> None:
    assert planned({"MAX_MODEL_LEN": "200000", **more}).arguments["max_model_len"].value == 200_000


@pytest.mark.parametrize("text", ["auto", "131072", "128K"])
def test_length_of_the_model_is_allowed_in_any_spelling(text: str) -> None:
    assert planned({"MAX_MODEL_LEN": text}).arguments["max_model_len"].origin == "MAX_MODEL_LEN"


@pytest.mark.parametrize("card", [A100, RTX_5090, nvidia("NVIDIA B200", 183359, "sm_100")])
def test_kernels_for_mxfp4_are_not_asked_for_without_it(card: Gpu) -> None:
    bf16 = gpt_oss(24, 16, None)

    assert {"moe_backend", "quantization_config"} & planned(
        {"MODEL_NAME": FOLDER}, SMALL, machine(card)
    ).arguments.keys()
    plan = planned({"MODEL_NAME": FOLDER}, bf16, machine(card))
    assert not {"moe_backend", "quantization_config"} & plan.arguments.keys()


def test_quantization_beyond_the_estimate_is_planned_with_a_warning() -> None:
    plan = planned({"MODEL_NAME": FOLDER}, gpt_oss(24, 32, {"quant_method": "bitsandbytes"}))

    assert plan.memory is None
    assert plan.warnings == (f"memory is not estimated: config.json of {FOLDER} has the quant_method bitsandbytes",)


def test_weights_without_sliding_layers_are_estimated() -> None:
    plan = planned({"MODEL_NAME": FOLDER}, gpt_oss(24, 32, sliding_window=None))

    with_window = planned({"MODEL_NAME": FOLDER}, SMALL)
    assert plan.memory
    assert with_window.memory
    assert plan.memory.request_gib == pytest.approx(2 * with_window.memory.request_gib, rel=0.15)


# Other architectures


def test_architecture_that_is_unknown_is_refused_with_the_way_out() -> None:
    with pytest.raises(ConfigurationError) as caught:
        planned({"MODEL_NAME": FOLDER}, OTHER)

    assert str(caught.value) == (
        f"config.json of {FOLDER} says Qwen3ForCausalLM, but this server is made for GptOssForCausalLM. Correct "
        "MODEL_NAME; ALLOW_OTHER_ARCHITECTURES=true serves it all the same, untested."
    )


def test_architecture_that_is_allowed_is_served_without_what_only_gpt_oss_has() -> None:
    plan = planned({"MODEL_NAME": FOLDER, "ALLOW_OTHER_ARCHITECTURES": "1"}, OTHER, machine(A100))

    assert not {
        "tool_call_parser", "reasoning_parser", "reasoning_config", "enable_auto_tool_choice", "max_model_len",
        "moe_backend",
    } & plan.arguments.keys()  # fmt: skip
    assert plan.served_names.value == ("tuned",)
    assert "ALLOW_OTHER_ARCHITECTURES lets it be served, untested" in plan.warnings[0]
    assert plan.warnings[1].startswith("memory is not estimated: ")


def test_architecture_that_is_allowed_gets_the_settings() -> None:
    environ = {
        "MODEL_NAME": FOLDER,
        "ALLOW_OTHER_ARCHITECTURES": "1",
        "TOOL_CALL_PARSER": "hermes",
        "MAX_MODEL_LEN": "9",
    }
    arguments = planned(environ, OTHER).arguments

    assert (arguments["tool_call_parser"].value, arguments["max_model_len"].value) == ("hermes", 9)


def test_architecture_that_is_not_known_is_planned_as_gpt_oss() -> None:
    assert planned({"MODEL_NAME": FOLDER}).arguments["tool_call_parser"].value == "openai"
    assert replace(unknown_config(FOLDER, "r"), architecture="X").is_other
