"""`configs/*.yaml` → `Profile`: what a bundle serves, what BentoML should provide, and vLLM's arguments by hardware.

A profile may `include` files that begin with an underscore: tiers, goals and limits that several models share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from gptoss_bento.config.goal import Goal
from gptoss_bento.config.variables import RESERVED
from gptoss_bento.config.vllm_options import known_options
from gptoss_bento.errors import ConfigurationError
from gptoss_bento.hardware.gpu_catalogue import families
from gptoss_bento.hardware.probe import GIB, Gpu, Hardware
from gptoss_bento.paths import PACKAGE, ROOT
from gptoss_bento.spelling import nearest

# In the repository and in a Bento `configs/` is beside `src/`; an installed wheel carries a copy inside the package.
_CONFIG_DIRS = (ROOT / "configs", PACKAGE / "configs")

AUTOMATIC = "auto"
"""Means the profile that suits the hardware found at start-up."""

PARALLEL_SIZES = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
"""The arguments that multiply the number of GPUs. They decide which tiers hold, so no tier may set them."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Shape(_Strict):
    """A model's dimensions, as its config.json has them; what the memory estimate needs.

    `expert_bits` are those of one expert weight with its share of the scale (MXFP4: 4 bits, and 8 for every 32 of
    them); None: experts are stored as all else. `draft_parameters` are those of the published EAGLE3 draft.
    """

    layers: int
    sliding_layers: int
    sliding_window: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    experts: int
    experts_per_token: int
    intermediate: int
    vocabulary: int
    max_length: int
    expert_bits: float | None = None
    draft_parameters: int = 0

    @property
    def dimensions(self) -> Shape:
        """What distinguishes the sizes: neither how the experts are stored nor how long a request may be."""
        return self.model_copy(update={"expert_bits": None, "max_length": 0, "draft_parameters": 0})

    def is_size_of(self, other: Shape) -> bool:
        """Whether the weights take as much as those of the other: the same dimensions, stored alike."""
        return self.dimensions == other.dimensions and self.expert_bits == other.expert_bits

    def can_be_shared_by(self, gpus: int) -> bool:
        """Whether so many GPUs can share it: vLLM 0.32's gpt_oss.py divides both kinds of heads by their number."""
        return self.heads % gpus == 0 and self.kv_heads % gpus == 0

    @property
    def parameters(self) -> int:
        """Those of attention, experts, embedding and head; biases and norms are a thousandth of them."""
        return self._dense_parameters + self._expert_parameters

    @property
    def weights_gib(self) -> float:
        """The size of a checkpoint in GiB. A kernel may pad the weights: planning/memory_estimate.py counts that."""
        expert_bits = 16 if self.expert_bits is None else self.expert_bits
        return (2 * self._dense_parameters + self._expert_parameters * expert_bits / 8) / GIB

    @property
    def _dense_parameters(self) -> int:
        attention = 2 * self.layers * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        return attention + 2 * self.vocabulary * self.hidden

    @property
    def _expert_parameters(self) -> int:
        return 3 * self.layers * self.experts * self.intermediate * self.hidden

    def __str__(self) -> str:
        experts = "" if self.expert_bits is None else f" at {self.expert_bits:g} bits"
        return f"{self.parameters / 1e9:.3g} B parameters, {self.layers} layers, {self.experts} experts{experts}"


class Model(_Strict):
    """Where the weights come from: `demo` (in this repository), a hub id or a folder; and the names clients use."""

    source: str
    revision: str | None = None
    served_names: tuple[str, ...] = Field(min_length=1)
    shape: Shape | None = None


class Service(_Strict):
    """What BentoML's service decorator gets, and the variables a deployment starts with."""

    resources: dict[str, Any] = {}
    traffic: dict[str, Any] = {}
    environment: dict[str, str] = {}


def _known_families(names: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := sorted(set(names) - families()):
        raise ValueError(f"no families of gpus.yaml: {', '.join(unknown)}; known: {', '.join(sorted(families()))}")
    return names


def _known_arguments(arguments: Iterable[str]) -> None:
    if unknown := [name for name in arguments if name not in known_options()]:
        raise ValueError(f"not options of vLLM: {', '.join(unknown)}")


class Requirements(_Strict):
    """The least hardware that can serve the model; refused below it, before anything is downloaded."""

    gpus: int = 0
    total_gpu_memory_gib: float = 0
    compute_capability: float = 0
    amd_families: tuple[str, ...] = ()
    reason: str = ""

    _known_amd_families = field_validator("amd_families")(_known_families)

    def __str__(self) -> str:
        nvidia = f" and, from NVIDIA, compute capability {self.compute_capability:.1f} or newer"
        amd = f"; from AMD, {' or '.join(self.amd_families)}"
        kinds = (nvidia if self.compute_capability else "") + (amd if self.amd_families else "")
        return f"{self.gpus} GPU(s) with together {self.total_gpu_memory_gib:g} GiB{kinds} ({self.reason})"

    def are_met_by_kind(self, gpu: Gpu) -> bool:
        """Whether such a GPU is new enough. An AMD card whose driver does not name its architecture is let through."""
        if gpu.vendor == "amd":
            return not self.amd_families or gpu.architecture == "amd" or gpu.family in self.amd_families
        return gpu.compute_capability >= self.compute_capability


class Engine(_Strict):
    """vLLM options by name, and variables of the engine's process."""

    arguments: dict[str, Any] = {}
    environment: dict[str, str] = {}

    @field_validator("arguments")
    @classmethod
    def _known(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        _known_arguments(arguments)
        if reserved := {"model", *RESERVED}.intersection(arguments):
            raise ValueError(f"decided by this server: {', '.join(sorted(reserved))}")
        return arguments


@dataclass(frozen=True)
class Situation:
    """What a condition asks about: the machine, how it is shared, and the model.

    `own_model`: the profile's own weights are served; `own_size`: weights of its size, such as a fine-tune of them;
    `mxfp4`: the experts are stored so, which is also assumed of a model of which nothing is known.
    """

    hardware: Hardware
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    own_model: bool = True
    own_size: bool = True
    mxfp4: bool = True

    @property
    def family(self) -> str:
        """That of the first GPU; a machine with several kinds is bounded by its requirements, not by tiers."""
        return self.hardware.gpus[0].family if self.hardware.gpus else ""


class Condition(_Strict):
    """When something applies. Every given field must hold; memory is that of the smallest GPU."""

    device: Literal["cpu", "gpu"] | None = None
    family: tuple[str, ...] = ()
    memory_gib_below: float | None = None
    memory_gib_from: float | None = None
    gpus: int | None = None
    tensor_parallel: int | None = None
    tensor_parallel_from: int | None = None
    pipeline_parallel: int | None = None
    own_model: bool | None = None
    own_size: bool | None = None
    mxfp4: bool | None = None

    _known_family = field_validator("family")(_known_families)

    def holds(self, situation: Situation) -> bool:
        """Whether this is such a situation."""
        memory = situation.hardware.smallest_gpu_gib
        gpus = len(situation.hardware.gpus)
        return all(
            (
                self.device in (None, "gpu" if gpus else "cpu"),
                not self.family or situation.family in self.family,
                self.memory_gib_below is None or memory < self.memory_gib_below,
                self.memory_gib_from is None or memory >= self.memory_gib_from,
                self.gpus in (None, gpus),
                self.tensor_parallel in (None, situation.tensor_parallel),
                self.tensor_parallel_from is None or situation.tensor_parallel >= self.tensor_parallel_from,
                self.pipeline_parallel in (None, situation.pipeline_parallel),
                self.own_model in (None, situation.own_model),
                self.own_size in (None, situation.own_size),
                self.mxfp4 in (None, situation.mxfp4),
            )
        )


class Conditional(Engine):
    """Arguments for the situations that meet `when`."""

    when: Condition = Condition()

    @field_validator("arguments")
    @classmethod
    def _keeps_sizes(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        if sizes := [name for name in PARALLEL_SIZES if name in arguments]:
            raise ValueError(f"belongs into the profile's own engine arguments: {', '.join(sizes)}")
        return arguments


class Tier(Conditional):
    """What a kind of machine gets; later tiers win over earlier ones."""

    name: str
    when: Condition


class Limit(_Strict):
    """A known limit: where `when` holds, `argument` must be below `below`, also if the operator set it."""

    when: Condition
    argument: str
    below: float
    reason: str

    @field_validator("argument")
    @classmethod
    def _known(cls, argument: str) -> str:
        _known_arguments([argument])
        return argument


class Shared(_Strict):
    """What several profiles have in common: one file whose name begins with an underscore."""

    engine: Engine = Engine()
    tiers: tuple[Tier, ...] = ()
    goals: dict[Goal, tuple[Conditional, ...]] = {}
    limits: tuple[Limit, ...] = ()


class Profile(Shared):
    """One file of configs/."""

    name: str
    description: str
    include: tuple[str, ...] = ()
    model: Model
    service: Service = Service()
    requires: Requirements = Requirements()

    def tiers_for(self, situation: Situation) -> tuple[Tier, ...]:
        """The tiers whose condition holds, in file order."""
        return tuple(tier for tier in self.tiers if tier.when.holds(situation))

    def goal_for(self, goal: Goal, situation: Situation) -> tuple[Conditional, ...]:
        """What the goal asks for here, in file order; later entries win."""
        return tuple(entry for entry in self.goals.get(goal, ()) if entry.when.holds(situation))


_Content = TypeVar("_Content", bound=Shared)


def config_dir() -> Path:
    """The folder of the profiles."""
    return next((folder for folder in _CONFIG_DIRS if folder.is_dir()), _CONFIG_DIRS[0])


def profile_names() -> list[str]:
    """The profiles that come with the bundle."""
    return sorted(path.stem for path in config_dir().glob("*.yaml") if not path.name.startswith("_"))


def load_profile(name: str) -> Profile:
    """Reads a profile by name, or from a path that ends in .yaml.

    Raises:
        ConfigurationError: there is no such profile (the nearest name is given), or its file is not valid.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else config_dir() / f"{name}.yaml"
    try:
        profile = _read(path, Profile)
    except (FileNotFoundError, IsADirectoryError):
        raise ConfigurationError(_no_such_profile(name)) from None
    for included in reversed(profile.include):
        profile = _merged(_included(path, included), profile)
    return profile


def _included(path: Path, name: str) -> Shared:
    try:
        return _read(config_dir() / f"{name}.yaml", Shared)
    except (FileNotFoundError, IsADirectoryError):
        raise ConfigurationError(f"{path.name}: include: there is no {name}.yaml in {config_dir().name}/") from None


def _read(path: Path, kind: type[_Content]) -> _Content:
    try:
        return kind.model_validate(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path.name} is not valid YAML: {error}") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors())
        raise ConfigurationError(f"{path.name}: {problems}") from None


def _merged(shared: Shared, profile: Profile) -> Profile:
    """The profile after what it includes: its own arguments win, and its own tiers and goals come later."""
    return profile.model_copy(
        update={
            "engine": Engine(
                arguments=shared.engine.arguments | profile.engine.arguments,
                environment=shared.engine.environment | profile.engine.environment,
            ),
            "tiers": shared.tiers + profile.tiers,
            "goals": _merged_goals(shared.goals, profile.goals),
            "limits": shared.limits + profile.limits,
        }
    )


_Goals = Mapping[Goal, tuple[Conditional, ...]]


def _merged_goals(first: _Goals, then: _Goals) -> _Goals:
    return {goal: first.get(goal, ()) + then.get(goal, ()) for goal in Goal if goal in first or goal in then}


def fits(profile: Profile, hardware: Hardware) -> bool:
    """Whether the hardware meets the profile's requirements."""
    return meets(profile.requires, hardware)


def meets(needs: Requirements, hardware: Hardware, shape: Shape | None = None) -> bool:
    """Whether the hardware meets the requirements. The shape says how many GPUs can share the model; else GPT-OSS's."""
    usable = largest_group(len(hardware.gpus), shape) * hardware.smallest_gpu_gib
    new_enough = all(needs.are_met_by_kind(gpu) for gpu in hardware.gpus)
    return len(hardware.gpus) >= needs.gpus and usable >= needs.total_gpu_memory_gib and new_enough


def largest_group(gpus: int, shape: Shape | None = None) -> int:
    """How many of these GPUs can share one model: 1, 2, 4 or 8 of them, because GPT-OSS has 8 key-value heads."""
    sizes = (size for size in (8, 4, 2, 1) if size <= gpus and (shape is None or shape.can_be_shared_by(size)))
    return next(sizes, 0)


def _no_such_profile(name: str) -> str:
    names = profile_names()
    close = nearest(name, names)
    hint = f"; did you mean {close!r}?" if close else "."
    return f"There is no profile {name!r}{hint} Known: {', '.join(names)}, or the path of a .yaml file."
