"""vLLM's own configuration files for GPT-OSS, option by option.

Source: the folder OpenAI of the repository vllm-project/recipes, as of 2026-05-10 (commit c033a83). All of them ask for
the same four things; those for Blackwell also for an 8-bit cache, those with EAGLE3 also for a draft, which is written
as JSON in quotes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

_COMMON: dict[str, Any] = {
    "no-enable-prefix-caching": True,
    "max-cudagraph-capture-size": 2048,
    "max-num-batched-tokens": 8192,
    "stream-interval": 20,
}
_BLACKWELL = {"kv-cache-dtype": "fp8"}
_DRAFT = {
    "model": "nvidia/gpt-oss-120b-Eagle3-v3",
    "num_speculative_tokens": 7,
    "method": "eagle3",
    "draft_tensor_parallel_size": 1,
}
_EAGLE3 = {"speculative-config": json.dumps(_DRAFT)}

RECIPES: dict[str, dict[str, Any]] = {
    "GPT-OSS_Blackwell.yaml": _BLACKWELL | _COMMON,
    "GPT-OSS_Hopper.yaml": _COMMON,
    "GPT-OSS_EAGLE3_Blackwell.yaml": _BLACKWELL | _COMMON | _EAGLE3,
    "GPT-OSS_EAGLE3_Hopper.yaml": _COMMON | _EAGLE3,
}
"""By the names that the files have there."""


def written(folder: Path, name: str) -> Path:
    """The file, in this folder."""
    path = folder / name
    path.write_text(yaml.safe_dump(RECIPES[name], sort_keys=False))
    return path
