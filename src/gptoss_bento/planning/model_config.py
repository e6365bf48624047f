"""What a model's config.json says: architecture and dimensions. Pure: artifacts/model_lookup.py finds the text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from gptoss_bento.config.profile import Profile, Shape
from gptoss_bento.errors import ConfigurationError

ARCHITECTURE = "GptOssForCausalLM"
"""The only one that this server is made for, as `architectures` in config.json has it."""

MXFP4 = ("mxfp4", "gpt_oss_mxfp4")
"""The method of GPT-OSS's experts: both names in vLLM 0.32, quantization/mxfp4.py."""

_MXFP4_BITS = 4.25  # 4 bits, and 8 bits of scale for every 32 weights
_TURNS = ("sliding_attention", "full_attention")
_SIZES = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "experts": "num_local_experts",
    "experts_per_token": "num_experts_per_tok",
    "intermediate": "intermediate_size",
    "vocabulary": "vocab_size",
    "max_length": "max_position_embeddings",
}


@dataclass(frozen=True)
class ModelConfig:
    """What is known of a model, and from where.

    `hub_id` is empty for a folder, unless the folder is one of the hub's cache. `names` are what clients call it when
    the operator gave no name: never a path. `shape` is None where nothing is known of it, and `unknown` says why.
    `architecture` is empty then, else the one of config.json. `quantization` is the experts' method, empty for none.
    """

    origin: str
    names: tuple[str, ...]
    hub_id: str = ""
    architecture: str = ARCHITECTURE
    shape: Shape | None = None
    unknown: str = ""
    quantization: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def is_other(self) -> bool:
        """Whether it is known to be something else than GPT-OSS."""
        return self.architecture not in ("", ARCHITECTURE)

    @property
    def beyond_estimate(self) -> str:
        """Why its memory cannot be estimated from its shape; empty if it can."""
        if self.shape is None:
            return self.unknown
        if self.quantization and self.shape.expert_bits is None:
            return f"{self.origin} has the quant_method {self.quantization}"
        return ""


def config_of_profile(profile: Profile) -> ModelConfig:
    """The profile's own model, as the profile describes it."""
    model = profile.model
    quantization = MXFP4[0] if model.shape and model.shape.expert_bits else ""
    unknown = "" if model.shape else f"profile {profile.name!r} has no model.shape"
    origin = f"profile {profile.name}"
    return ModelConfig(
        origin, model.served_names, model.source, shape=model.shape, unknown=unknown, quantization=quantization
    )


def unknown_config(model: str, reason: str) -> ModelConfig:
    """A model whose config.json was not found; it is served all the same, if it is there at the start."""
    name, hub_id = named(model)
    return ModelConfig(model, (name,), hub_id, architecture="", unknown=reason)


def named(model: str) -> tuple[str, str]:
    """(what clients call it, its hub id if it has one) of a hub id or of a folder's path."""
    return name_of_folder(PurePath(model)) if is_path(model) else (model, model)


def is_path(model: str) -> bool:
    """A name that starts like a path is one, so that a mistyped path is not searched on the hub."""
    return model.startswith(("/", "./", "../", "~"))


def name_of_folder(folder: PurePath) -> tuple[str, str]:
    """(the name of the model in this folder, its hub id if it is a folder of the hub's cache): never a path.

    A fine-tune of gpt-oss-20b does not get the names of gpt-oss-20b: a client of those wants the published weights.
    """
    parts = [part for part in folder.parts if part != folder.anchor]
    if parts and re.fullmatch("[0-9a-f]{40}", parts[-1]):  # a commit of the hub
        parts = parts[:-2] if parts[-2:-1] == ["snapshots"] else parts[:-1]
    last = parts[-1] if parts else ""
    if last.startswith("models--"):
        hub_id = last.removeprefix("models--").replace("--", "/")
        return hub_id, hub_id
    return re.sub(r"[^\w.-]+", "-", last).strip("-.") or "model", ""


def parse_config(
    text: str, source: str, origin: str, name: tuple[str, str], overrides: Mapping[str, Any] | None = None
) -> ModelConfig:
    """Reads the text of a config.json.

    Args:
        source: the file, for errors.
        origin: where that is, for people: "config.json of …".
        name: as `named` returns it.
        overrides: entries by which vLLM will replace them (HF_OVERRIDES).

    Raises:
        ConfigurationError: it is no JSON, or keys are missing or wrong; all of them are named.
    """
    content = {**_json_object(text, source), **(overrides or {})}
    architecture = _architecture(content, source)
    if architecture != ARCHITECTURE:
        unknown = f"{origin} says {architecture}, which this server does not know"
        return ModelConfig(origin, (name[0],), name[1], architecture, unknown=unknown)
    reader = _Reader(content)
    shape, warnings = reader.shape(), reader.warnings(overrides or {})
    if reader.problems:
        raise ConfigurationError("\n".join(f"{source}: {problem}" for problem in reader.problems))
    return ModelConfig(
        origin, (name[0],), name[1], shape=Shape(**shape), quantization=reader.quantization, warnings=warnings
    )


def _json_object(text: str, source: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{source} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ConfigurationError(f"{source} is not a JSON object but {_shown(content)}")
    return content


def _architecture(content: Mapping[str, Any], source: str) -> str:
    """GPT-OSS's where it is among them, else the first."""
    found = content.get("architectures")
    if not isinstance(found, list) or not found or not all(isinstance(each, str) for each in found):
        problem = f"is {_shown(found)}" if "architectures" in content else "is missing"
        raise ConfigurationError(f"{source}: architectures {problem}; allowed: a list of names, here {ARCHITECTURE!r}")
    return ARCHITECTURE if ARCHITECTURE in found else str(found[0])


class _Reader:
    """Collects problems over one pass. What it returns is right where it found none."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._content = content
        self.problems: list[str] = []
        self.quantization = self._quantization()

    def shape(self) -> dict[str, Any]:
        sizes = {field: self._size(key) for field, key in _SIZES.items()}
        window = self._size("sliding_window") if self._content.get("sliding_window", 0) is not None else 0
        # vLLM 0.32's gpt_oss.py alternates, and ignores layer_types.
        sliding = (sizes["layers"] + 1) // 2 if window else 0
        bits = _MXFP4_BITS if self.quantization in MXFP4 else None
        if sizes["heads"] % sizes["kv_heads"]:
            self.problems.append(
                f"num_attention_heads is {sizes['heads']}; allowed: a multiple of num_key_value_heads, which is "
                f"{sizes['kv_heads']}"
            )
        return {**sizes, "sliding_layers": sliding, "sliding_window": window, "expert_bits": bits}

    def _size(self, key: str) -> int:
        value = self._content.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
            return value
        problem = f"is {_shown(value)}" if key in self._content else "is missing"
        self.problems.append(f"{key} {problem}; allowed: a whole number of at least 1")
        return 1

    def _quantization(self) -> str:
        config = self._content.get("quantization_config")
        if config is None:
            return ""
        method = config.get("quant_method") if isinstance(config, dict) else None
        if not isinstance(method, str) or not method:
            self.problems.append(
                f"quantization_config is {_shown(config)}; allowed: an object with a quant_method, as 'mxfp4'"
            )
            return ""
        return method

    def warnings(self, overrides: Mapping[str, Any]) -> tuple[str, ...]:
        """A warning about layer types that vLLM ignores."""
        types, layers = self._content.get("layer_types"), self._content.get("num_hidden_layers")
        if types is None:
            return ()
        if not isinstance(types, list) or not all(each in _TURNS for each in types):
            self.problems.append(f"layer_types is {_shown(types)}; allowed: a list of {' and '.join(_TURNS)}")
            return ()
        if len(types) != layers and "num_hidden_layers" not in overrides:  # Transformers refuses it, and so vLLM
            self.problems.append(f"layer_types has {len(types)} entries; allowed: as many as num_hidden_layers")
        if all(each == _TURNS[index % 2] for index, each in enumerate(types)):
            return ()
        return ("layer_types in config.json does not alternate; vLLM 0.32 serves every other layer as sliding anyway",)


_LONGEST_SHOWN = 60


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
