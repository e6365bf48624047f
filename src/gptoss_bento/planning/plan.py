"""What vLLM is started with: each value with its origin. Pure; `planning/planner.py` makes a plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gptoss_bento.config.vllm_options import known_options
from gptoss_bento.hardware.probe import Hardware
from gptoss_bento.planning.kernel_key import KERNEL_CACHES, Kernels
from gptoss_bento.planning.memory_estimate import Estimate
from gptoss_bento.planning.model_config import ModelConfig
from gptoss_bento.redaction import redacted


@dataclass(frozen=True)
class Planned:
    """A value and where it comes from: default, profile, tier, goal, or the name of a variable."""

    value: Any
    origin: str


@dataclass(frozen=True)
class PlannedTool:
    """A tool that a model may call on the server: whether it is on, how or why not, and who said so."""

    is_on: bool
    how: str
    origin: str


@dataclass(frozen=True)
class EnginePlan:
    """Everything the engine is started with. `model` is a hub id, a folder, or `demo`; `config` what is known of it.

    `memory` is None where it cannot be estimated; then one of the `warnings` says why. `kernel_folder` is None without
    a GPU; `kernels` is what it holds, and None for a machine that need not exist.
    """

    profile: str
    hardware: Hardware
    goal: Planned
    model: Planned
    config: ModelConfig
    revision: Planned
    served_names: Planned
    arguments: Mapping[str, Planned]
    environment: Mapping[str, Planned]
    api_workers: Planned
    warmup: Planned
    preload: Planned
    tools: Mapping[str, PlannedTool] = field(default_factory=dict)
    kernel_folder: Planned | None = None
    kernels: Kernels | None = None
    profile_origin: str = ""
    memory: Estimate | None = None
    warnings: tuple[str, ...] = ()

    def argv(self, model: str) -> list[str]:
        """The arguments of `vllm serve`. `model` is the folder of the prepared weights."""
        words = [f"--model={model}", "--served-model-name", *self.served_names.value]
        if self.revision.value and model == self.model.value:
            words.append(f"--revision={self.revision.value}")
        if self.api_workers.value > 1:
            words.append(f"--api-server-count={self.api_workers.value}")
        options = known_options()
        for name, planned in self.arguments.items():
            words += options[name].argv(planned.value)
        return words

    @property
    def draft(self) -> str | None:
        """The model that speculates, if one does."""
        speculation = self.arguments.get("speculative_config")
        named = speculation.value.get("model") if speculation and isinstance(speculation.value, dict) else None
        return str(named) if named else None

    @property
    def tokenizer(self) -> tuple[str, str | None] | None:
        """A separate tokenizer and its revision, if the operator named one."""
        named, revision = (self.arguments.get(name) for name in ("tokenizer", "tokenizer_revision"))
        return (str(named.value), revision.value if revision else None) if named else None

    def variables(self, vocabulary_dir: Path) -> dict[str, str]:
        """What the engine's processes need in their environment; openai_harmony finds its vocabulary there."""
        planned = {name: str(planned.value) for name, planned in self.environment.items()}
        # Ours wins here: the vocabulary was verified, and a folder the operator named without it was warned about.
        return {**planned, "TIKTOKEN_ENCODINGS_BASE": str(vocabulary_dir)}

    @property
    def size(self) -> Planned:
        """The model's shape, if it is known, and where it was read, or why not."""
        shape = self.config.shape
        return Planned(shape, self.config.origin if shape else self.config.unknown)

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """(name, value, origin) of everything planned, for people; what may be a secret is not shown."""
        yield "profile", self.profile, self.profile_origin
        yield "hardware", str(self.hardware), self.hardware.origin
        yield "goal", str(self.goal.value), self.goal.origin
        yield "model", str(self.model.value), self.model.origin
        yield "model size", str(self.size.value or "not known"), self.size.origin
        if self.revision.value:
            yield "revision", str(self.revision.value), self.revision.origin
        yield "served names", ", ".join(self.served_names.value), self.served_names.origin
        yield "API workers", str(self.api_workers.value), self.api_workers.origin
        yield "warm-up requests", "yes" if self.warmup.value else "no", self.warmup.origin
        if self.kernel_folder:
            held = f" ({self.kernels})" if self.kernels else ""
            yield "kernel caches", f"{self.kernel_folder.value}{held}", self.kernel_folder.origin
        yield "engine imports early", "yes" if self.preload.value else "no", self.preload.origin
        for name, tool in self.tools.items():
            yield f"tool {name}", tool.how, tool.origin
        for name, planned in self.arguments.items():
            yield f"--{name.replace('_', '-')}", str(redacted(name, planned.value)), planned.origin
        for name, planned in self.environment.items():
            yield name, str(redacted(name, planned.value)), planned.origin
        if self.memory:
            yield "memory", str(self.memory), "estimate"
        for warning in self.warnings:
            yield "warning", warning, ""


def with_kernels(plan: EnginePlan, kernels: Kernels) -> EnginePlan:
    """The plan with what its folder of kernels holds. One that cannot be written is replaced, which a warning says."""
    moved = {}
    if kernels.replacement:
        places = {variable: str(kernels.folder / name) for variable, name in KERNEL_CACHES.items()}
        moved = {
            variable: Planned(str(kernels.replacement / KERNEL_CACHES[variable]), kernels.unwritable)
            for variable, place in places.items()
            if plan.environment[variable].value == place
        }
    environment = {**plan.environment, **moved}
    return replace(plan, kernels=kernels, environment=environment, warnings=(*plan.warnings, *kernels.warnings))
