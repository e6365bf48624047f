from __future__ import annotations

import json
from pathlib import Path

import pytest

from gptoss_bento.bench import random_weights
from gptoss_bento.bench.random_weights import Size
from gptoss_bento.config.profile import load_profile
from gptoss_bento.demo import checkpoint


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    """A vocabulary of single bytes, which is read in a moment."""
    path = tmp_path / "o200k_base.tiktoken"
    path.write_text("YQ== 0\nYg== 1\nYWI= 2\n")
    return path


@pytest.mark.parametrize(("size", "layers", "experts"), [(Size.SMALL, 24, 32), (Size.LARGE, 36, 128)])
def test_config_has_the_published_shapes(size: Size, layers: int, experts: int) -> None:
    found = random_weights.config(size)

    assert found["architectures"] == ["GptOssForCausalLM"]
    assert (found["num_hidden_layers"], found["num_local_experts"]) == (layers, experts)
    assert found["num_experts_per_tok"] == 4
    assert found["layer_types"][:3] == ["sliding_attention", "full_attention", "sliding_attention"]
    assert len(found["layer_types"]) == layers
    assert (found["hidden_size"], found["intermediate_size"], found["head_dim"]) == (2880, 2880, 64)
    assert (found["num_attention_heads"], found["num_key_value_heads"]) == (64, 8)
    assert (found["vocab_size"], found["sliding_window"], found["max_position_embeddings"]) == (201088, 128, 131072)
    assert (found["rope_theta"], found["initializer_range"], found["swiglu_limit"]) == (150000, 0.02, 7.0)
    assert found["rope_scaling"] == {
        "rope_type": "yarn",
        "factor": 32.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
        "original_max_position_embeddings": 4096,
    }
    assert found["quantization_config"]["quant_method"] == "mxfp4"
    assert "model.layers.*.mlp.router" in found["quantization_config"]["modules_to_not_convert"]


@pytest.mark.parametrize("size", list(Size))
def test_config_agrees_with_the_profile(size: Size) -> None:
    shape, config = load_profile(size.profile).model.shape, random_weights.config(size)

    assert shape is not None
    assert (shape.layers, shape.experts) == (config["num_hidden_layers"], config["num_local_experts"])
    assert (shape.hidden, shape.heads, shape.kv_heads) == (2880, 64, 8)
    assert size.served_name in load_profile(size.profile).model.served_names


def test_folder_holds_all_but_weights(vocabulary: Path, tmp_path: Path) -> None:
    folder = random_weights.make(Size.SMALL, tmp_path / "cache", vocabulary)

    names = {path.name for path in folder.iterdir()}
    assert names == {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert json.loads((folder / "config.json").read_text()) == random_weights.config(Size.SMALL)
    assert json.loads((folder / "generation_config.json").read_text()) == checkpoint.GENERATION_CONFIG
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.name], "nothing unfinished is left"


def test_folder_is_made_once_and_each_size_has_its_own(vocabulary: Path, tmp_path: Path) -> None:
    folder = random_weights.make(Size.SMALL, tmp_path, vocabulary)
    vocabulary.unlink()  # not read again

    assert random_weights.make(Size.SMALL, tmp_path, vocabulary) == folder
    assert folder.name.startswith("random-20b-")


def test_variables_serve_the_folder_under_the_published_name(tmp_path: Path) -> None:
    assert random_weights.variables(Size.LARGE, tmp_path) == {
        "MODEL_NAME": str(tmp_path),
        "SERVED_MODEL_NAME": "openai/gpt-oss-120b",
        "LOAD_FORMAT": "dummy",
    }
