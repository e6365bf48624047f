"""config.json files of models that need no weights, the published sizes and others; and what is planned for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gptoss_bento.config.environment import load_settings
from gptoss_bento.config.profile import AUTOMATIC
from gptoss_bento.demo.checkpoint import CONFIG
from gptoss_bento.hardware.probe import Hardware
from gptoss_bento.planning.model_config import ModelConfig, named, parse_config, unknown_config
from gptoss_bento.planning.plan import EnginePlan
from gptoss_bento.planning.planner import make_plan
from gptoss_bento.planning.profile_choice import ProfileChoice, choose_profile
from tests.fakes import H100, machine

MXFP4 = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}


def gpt_oss(layers: int, experts: int, quantization: dict[str, Any] | None = MXFP4, **changes: Any) -> dict[str, Any]:
    """A GPT-OSS of this size, with the published models' other dimensions. None: experts in bf16."""
    return {
        **CONFIG,
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "num_hidden_layers": layers,
        "layer_types": [("sliding_attention", "full_attention")[index % 2] for index in range(layers)],
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "num_local_experts": experts,
        "num_experts_per_tok": 4,
        **({"quantization_config": quantization} if quantization else {}),
        **changes,
    }


SMALL, LARGE = gpt_oss(24, 32), gpt_oss(36, 128)
"""gpt-oss-20b and gpt-oss-120b, as published."""

OTHER = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}


def folder_with(path: Path, config: object) -> Path:
    """The folder, made with this config.json and no weights; a string is written as it is."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return path


def chosen(
    environ: dict[str, str],
    config: dict[str, Any] | None = None,
    hardware: Hardware | None = None,
    name: str = AUTOMATIC,
) -> ProfileChoice:
    """The choice where every model that is looked up has this config.json; None: it is not in reach."""

    def find(model: str, _: str | None) -> ModelConfig:
        if config is None:
            return unknown_config(model, "not in reach")
        return parse_config(json.dumps(config), f"{model}/config.json", f"config.json of {model}", named(model))

    return choose_profile(name, load_settings(environ), hardware or machine(H100), find)


def planned(
    environ: dict[str, str],
    config: dict[str, Any] | None = None,
    hardware: Hardware | None = None,
    name: str = AUTOMATIC,
) -> EnginePlan:
    """The plan for the same."""
    hardware = hardware or machine(H100)
    choice = chosen(environ, config, hardware, name)
    return make_plan(load_settings(environ), choice.profile, hardware, choice.model, choice.origin)
