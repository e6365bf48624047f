"""A GPT-OSS of the published shapes without weights, for `LOAD_FORMAT=dummy`: its speed is real, its text is not.

vLLM then fills weights of the right shapes and types with random numbers, so nothing is downloaded. The shapes are
those of config.json in openai/gpt-oss-20b and openai/gpt-oss-120b; the tokenizer is o200k_harmony, as the demo model's.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Any

from gptoss_bento.demo import checkpoint

logger = logging.getLogger(__name__)

LOAD_FORMAT = "dummy"
"""vLLM's load format that makes weights up."""

_COMMON: dict[str, Any] = {
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "num_experts_per_tok": 4,
    "experts_per_token": 4,
    "initializer_range": 0.02,
    "quantization_config": {
        "quant_method": "mxfp4",
        "modules_to_not_convert": [
            "model.layers.*.self_attn",
            "model.layers.*.mlp.router",
            "model.embed_tokens",
            "lm_head",
        ],
    },
}
_LAYERS = {"20b": 24, "120b": 36}
_EXPERTS = {"20b": 32, "120b": 128}


class Size(StrEnum):
    """Which of the two published models."""

    SMALL = "20b"
    LARGE = "120b"

    @property
    def profile(self) -> str:
        """The profile of configs/ that suits it."""
        return f"gpt-oss-{self}"

    @property
    def served_name(self) -> str:
        """What clients call it."""
        return f"openai/{self.profile}"


def config(size: Size) -> dict[str, Any]:
    """`config.json`: what the demo model has in common with the published ones, and their shapes."""
    layers = _LAYERS[size]
    return {
        **checkpoint.CONFIG,
        **_COMMON,
        "num_hidden_layers": layers,
        "num_local_experts": _EXPERTS[size],
        "layer_types": ["sliding_attention", "full_attention"] * (layers // 2),
    }


def make(size: Size, cache: Path, vocabulary: Path) -> Path:
    """The folder of the model, below `cache`; made if it is not there yet, complete or not at all.

    Args:
        vocabulary: a verified `o200k_base.tiktoken`.
    """
    target = cache / f"random-{size}-{_fingerprint(size)}"
    if target.is_dir():
        return target
    logger.info("writing a GPT-OSS of %s without weights into %s", size, target)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=cache) as unfinished:
        folder = Path(unfinished) / target.name
        folder.mkdir()
        for name, content in _files(size, vocabulary).items():
            (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        return folder.replace(target)


def variables(size: Size, folder: Path) -> dict[str, str]:
    """The variables that make the service serve it."""
    return {"MODEL_NAME": str(folder), "SERVED_MODEL_NAME": size.served_name, "LOAD_FORMAT": LOAD_FORMAT}


def _files(size: Size, vocabulary: Path) -> dict[str, dict[str, Any]]:
    return {
        "config.json": config(size),
        "generation_config.json": checkpoint.GENERATION_CONFIG,
        "tokenizer_config.json": checkpoint.tokenizer_config(),
        "tokenizer.json": checkpoint.tokenizer(vocabulary),
    }


def _fingerprint(size: Size) -> str:
    """Changes with what is written, so that an older folder is not taken for it."""
    code = Path(checkpoint.__file__).read_bytes()
    return hashlib.sha256(json.dumps(config(size)).encode() + code).hexdigest()[:12]
