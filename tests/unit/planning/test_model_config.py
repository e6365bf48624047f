from __future__ import annotations

import json
from pathlib import PurePath
from typing import Any

import pytest

from gptoss_bento.config.profile import Shape, load_profile
from gptoss_bento.demo.checkpoint import CONFIG
from gptoss_bento.errors import ConfigurationError
from gptoss_bento.planning.model_config import (
    ModelConfig,
    config_of_profile,
    name_of_folder,
    named,
    parse_config,
    unknown_config,
)
from tests.configs import LARGE, OTHER, SMALL, gpt_oss

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILE = "/models/tuned/config.json"


def parsed(config: object, overrides: dict[str, Any] | None = None) -> ModelConfig:
    text = config if isinstance(config, str) else json.dumps(config)
    return parse_config(text, FILE, "config.json of /models/tuned", ("tuned", ""), overrides)


def shape_of(profile: str) -> Shape:
    shape = load_profile(profile).model.shape
    assert shape is not None
    return shape


# Dimensions


@pytest.mark.parametrize(("config", "profile"), [(SMALL, "gpt-oss-20b"), (LARGE, "gpt-oss-120b"), (CONFIG, "demo")])
def test_config_of_a_published_size_has_the_shape_of_its_profile(config: dict[str, Any], profile: str) -> None:
    found = parsed(config)

    assert found.shape == shape_of(profile).model_copy(update={"draft_parameters": 0})
    assert (found.architecture, found.unknown, found.warnings) == ("GptOssForCausalLM", "", ())


@pytest.mark.parametrize(
    ("field", "key"),
    [
        ("layers", "num_hidden_layers"),
        ("sliding_window", "sliding_window"),
        ("hidden", "hidden_size"),
        ("heads", "num_attention_heads"),
        ("kv_heads", "num_key_value_heads"),
        ("head_dim", "head_dim"),
        ("experts", "num_local_experts"),
        ("experts_per_token", "num_experts_per_tok"),
        ("intermediate", "intermediate_size"),
        ("vocabulary", "vocab_size"),
        ("max_length", "max_position_embeddings"),
    ],
)
def test_demo_profile_has_each_number_of_the_demo_checkpoint(field: str, key: str) -> None:
    assert getattr(shape_of("demo"), field) == CONFIG[key]


def test_demo_profile_has_the_sliding_layers_of_the_demo_checkpoint() -> None:
    assert shape_of("demo").sliding_layers == CONFIG["layer_types"].count("sliding_attention")


@pytest.mark.parametrize(
    ("config", "parameters", "gib"),
    [(SMALL, 20.9e9, 12.8), (LARGE, 116.8e9, 60.7), (gpt_oss(24, 32, None), 20.9e9, 38.9)],
)
def test_size_is_that_of_the_model_card(config: dict[str, Any], parameters: float, gib: float) -> None:
    """OpenAI's model card: 20.9 and 116.8 B parameters, checkpoints of 12.8 and 60.8 GiB."""
    shape = parsed(config).shape

    assert shape is not None
    assert shape.parameters == pytest.approx(parameters, rel=0.002)
    assert shape.weights_gib == pytest.approx(gib, rel=0.01)


def test_size_is_printed_in_a_line() -> None:
    assert str(parsed(SMALL).shape) == "20.9 B parameters, 24 layers, 32 experts at 4.25 bits"
    assert str(parsed(gpt_oss(24, 32, None)).shape) == "20.9 B parameters, 24 layers, 32 experts"


@pytest.mark.parametrize(
    ("config", "layers"),
    [
        (gpt_oss(5, 32), 3),  # the first layer slides
        (gpt_oss(4, 32, layer_types=None), 2),
        (gpt_oss(4, 32, sliding_window=None), 0),
    ],
)
def test_sliding_layers_are_those_of_vllm(config: dict[str, Any], layers: int) -> None:
    shape = parsed(config).shape

    assert shape is not None
    assert shape.sliding_layers == layers


def test_sliding_layers_that_do_not_alternate_are_a_warning() -> None:
    (warning,) = parsed(gpt_oss(2, 32, layer_types=["full_attention", "full_attention"])).warnings

    assert "layer_types" in warning


@pytest.mark.parametrize(
    ("quantization", "bits", "beyond"),
    [
        ({"quant_method": "mxfp4"}, 4.25, ""),
        ({"quant_method": "gpt_oss_mxfp4"}, 4.25, ""),
        (None, None, ""),
        ({"quant_method": "bitsandbytes"}, None, "has the quant_method bitsandbytes"),
    ],
)
def test_quantization_of_the_experts_is_read(quantization: dict[str, str], bits: float | None, beyond: str) -> None:
    found = parsed(gpt_oss(24, 32, quantization))

    assert found.shape is not None
    assert found.shape.expert_bits == bits
    assert found.beyond_estimate.endswith(beyond)
    assert bool(found.beyond_estimate) == bool(beyond)


def test_overrides_of_the_operator_replace_entries() -> None:
    found = parsed(SMALL, {"num_hidden_layers": 4})

    assert found.shape is not None
    assert (found.shape.layers, found.shape.sliding_layers) == (4, 2)


# What is wrong


def test_architecture_of_another_model_is_read_without_its_dimensions() -> None:
    found = parsed(OTHER)

    assert found.is_other
    assert (found.architecture, found.shape) == ("Qwen3ForCausalLM", None)
    assert "Qwen3ForCausalLM" in found.unknown


def test_architecture_of_gpt_oss_may_be_one_of_several() -> None:
    assert not parsed({**SMALL, "architectures": ["Mine", "GptOssForCausalLM"]}).is_other


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", rf"^{FILE} is not JSON: "),
        ("", rf"^{FILE} is not JSON: "),
        ("[1]", rf"^{FILE} is not a JSON object but \[1\]$"),
        ({}, rf"^{FILE}: architectures is missing"),
        ({"architectures": []}, rf"^{FILE}: architectures is \[\]"),
        ({"architectures": "GptOssForCausalLM"}, rf'^{FILE}: architectures is "GptOss'),
        ({**SMALL, "hidden_size": "many"}, rf'^{FILE}: hidden_size is "many"; allowed: a whole number of at least 1$'),
        ({**SMALL, "hidden_size": 2880.5}, "hidden_size is 2880.5"),
        ({**SMALL, "hidden_size": True}, "hidden_size is true"),
        ({**SMALL, "vocab_size": 0}, "vocab_size is 0"),
        ({**SMALL, "head_dim": None}, "head_dim is null"),
        ({**SMALL, "sliding_window": -1}, "sliding_window is -1"),
        ({**SMALL, "num_key_value_heads": 7}, "num_attention_heads is 64; allowed: a multiple of num_key_value_heads"),
        ({**SMALL, "layer_types": "sliding"}, 'layer_types is "sliding"; allowed: a list of'),
        ({**SMALL, "layer_types": ["linear"]}, r'layer_types is \["linear"\]; allowed: a list of'),
        ({**SMALL, "num_hidden_layers": 12}, "layer_types has 24 entries; allowed: as many as num_hidden_layers"),
        ({**SMALL, "quantization_config": "mxfp4"}, 'quantization_config is "mxfp4"; allowed: an object with'),
        ({**SMALL, "quantization_config": {}}, "quantization_config is {}; allowed: an object with a quant_method"),
    ],
)
def test_config_that_is_wrong_is_refused_with_file_and_key(config: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        parsed(config)

    assert caught.value.exit_code == 78  # a restart does not help


def test_config_that_is_wrong_is_refused_with_all_its_keys() -> None:
    keys = ("hidden_size", "head_dim")

    with pytest.raises(ConfigurationError) as caught:
        parsed({name: value for name, value in SMALL.items() if name not in keys})

    assert str(caught.value).splitlines() == [
        f"{FILE}: {key} is missing; allowed: a whole number of at least 1" for key in keys
    ]


# Names


@pytest.mark.parametrize(
    ("path", "name", "hub_id"),
    [
        ("/models/my-tune", "my-tune", ""),
        ("/models/my tune (v2)/", "my-tune-v2", ""),
        ("/models/openai/gpt-oss-20b", "gpt-oss-20b", ""),
        ("/out/tune/checkpoint-500", "checkpoint-500", ""),
        (f"/cache/hub/models--acme--tuned/snapshots/{COMMIT}", "acme/tuned", "acme/tuned"),
        ("/cache/hub/models--acme--tuned", "acme/tuned", "acme/tuned"),
        (f"/mirror/tuned/{COMMIT}", "tuned", ""),
        ("/snapshots/x", "x", ""),
        (f"/{COMMIT}", "model", ""),
        ("/", "model", ""),
        ("/models/...", "model", ""),
        ("/models/größe", "größe", ""),
    ],
)
def test_name_of_a_folder_is_never_its_path(path: str, name: str, hub_id: str) -> None:
    assert name_of_folder(PurePath(path)) == (name, hub_id)


def test_name_of_a_model_on_the_hub_is_its_id() -> None:
    assert named("acme/tuned") == ("acme/tuned", "acme/tuned")


@pytest.mark.parametrize("model", ["/nowhere/tuned", "./tuned", "../x/tuned", "~/tuned"])
def test_name_of_an_unknown_model_is_never_its_path(model: str) -> None:
    assert unknown_config(model, "not there").names == ("tuned",)


def test_profiles_own_model_has_the_profiles_names_and_shape() -> None:
    found = config_of_profile(load_profile("gpt-oss-20b"))

    assert found.names == ("openai/gpt-oss-20b", "gpt-oss-20b")
    assert (found.hub_id, found.shape) == ("openai/gpt-oss-20b", shape_of("gpt-oss-20b"))
