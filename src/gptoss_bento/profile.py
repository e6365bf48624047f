"""`configs/*.yaml` → `Profile`: what a bundle serves, what BentoML should give it, and vLLM's arguments by hardware."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from gptoss_bento.errors import ConfigurationError
from gptoss_bento.hardware import Hardware
from gptoss_bento.variables import RESERVED
from gptoss_bento.vllm_options import known_options

# In the repository and in a Bento `configs/` lies beside `src/`; an installed wheel carries a copy inside the package.
_CONFIG_DIRS = (Path(__file__).parents[2] / "configs", Path(__file__).parent / "configs")

AUTOMATIC = "auto"
"""Stands for the profile that suits the hardware found at start-up."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Model(_Strict):
    """Where the weights come from: `demo` (in this repository), a hub id or a folder; and the names clients use."""

    source: str
    revision: str | None = None
    served_names: tuple[str, ...] = Field(min_length=1)


class Service(_Strict):
    """What BentoML's service decorator gets, and the variables a deployment starts with."""

    resources: dict[str, Any] = {}
    traffic: dict[str, Any] = {}
    environment: dict[str, str] = {}


class Requirements(_Strict):
    """The least hardware that can serve the model; refused below it, before anything is downloaded."""

    gpus: int = 0
    total_gpu_memory_gib: float = 0
    compute_capability: float = 0
    reason: str = ""

    def __str__(self) -> str:
        return (
            f"{self.gpus} GPU(s) with together {self.total_gpu_memory_gib:g} GiB and, from NVIDIA, compute capability "
            f"{self.compute_capability:.1f} or newer ({self.reason})"
        )


class Engine(_Strict):
    """vLLM options by name, and variables of the engine's process."""

    arguments: dict[str, Any] = {}
    environment: dict[str, str] = {}

    @field_validator("arguments")
    @classmethod
    def _known(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        if unknown := [name for name in arguments if name not in known_options()]:
            raise ValueError(f"not options of vLLM: {', '.join(unknown)}")
        if reserved := {"model", *RESERVED}.intersection(arguments):
            raise ValueError(f"decided by this server: {', '.join(sorted(reserved))}")
        return arguments


class Condition(_Strict):
    """Which machines a tier is for. Every given field must hold."""

    device: Literal["cpu", "gpu"] | None = None
    memory_gib_below: float | None = None
    memory_gib_from: float | None = None
    gpus: int | None = None

    def holds(self, hardware: Hardware) -> bool:
        memory = hardware.smallest_gpu_gib
        return all(
            (
                self.device is None or (self.device == "gpu") == bool(hardware.gpus),
                self.memory_gib_below is None or memory < self.memory_gib_below,
                self.memory_gib_from is None or memory >= self.memory_gib_from,
                self.gpus is None or len(hardware.gpus) == self.gpus,
            )
        )


class Tier(Engine):
    """Arguments for the machines that meet `when`; later tiers win over earlier ones."""

    name: str
    when: Condition


class Profile(_Strict):
    """One file of configs/."""

    name: str
    description: str
    model: Model
    service: Service = Service()
    requires: Requirements = Requirements()
    engine: Engine = Engine()
    tiers: tuple[Tier, ...] = ()

    def tiers_for(self, hardware: Hardware) -> tuple[Tier, ...]:
        """The tiers whose condition this hardware meets, in file order."""
        return tuple(tier for tier in self.tiers if tier.when.holds(hardware))


def config_dir() -> Path:
    """The folder of the profiles."""
    return next((folder for folder in _CONFIG_DIRS if folder.is_dir()), _CONFIG_DIRS[0])


def profile_names() -> list[str]:
    """The profiles that come with the bundle."""
    return sorted(path.stem for path in config_dir().glob("*.yaml"))


def load_profile(name: str) -> Profile:
    """Reads a profile by name, or from a path that ends in .yaml.

    Raises:
        ConfigurationError: there is no such profile (the nearest name is given), or its file is not valid.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else config_dir() / f"{name}.yaml"
    try:
        content = yaml.safe_load(path.read_text())
        return Profile.model_validate(content)
    except (FileNotFoundError, IsADirectoryError):
        raise ConfigurationError(_no_such_profile(name)) from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path.name} is not valid YAML: {error}") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors())
        raise ConfigurationError(f"{path.name}: {problems}") from None


def automatic_profile(hardware: Hardware, model_name: str | None = None) -> str:
    """The profile for an operator who named none: that of MODEL_NAME, else gpt-oss-20b where it fits, else `demo`."""
    for name in profile_names():
        if load_profile(name).model.source == model_name:
            return name
    return "gpt-oss-20b" if fits(load_profile("gpt-oss-20b"), hardware) else "demo"


def fits(profile: Profile, hardware: Hardware) -> bool:
    """Whether the hardware meets the profile's requirements."""
    needs = profile.requires
    usable = largest_group(len(hardware.gpus)) * hardware.smallest_gpu_gib
    new_enough = all(gpu.compute_capability >= needs.compute_capability for gpu in hardware.gpus)
    return len(hardware.gpus) >= needs.gpus and usable >= needs.total_gpu_memory_gib and new_enough


def largest_group(gpus: int) -> int:
    """How many of these GPUs can share one model: GPT-OSS has 8 key-value heads, so 1, 2, 4 or 8 of them."""
    return next((size for size in (8, 4, 2, 1) if size <= gpus), 0)


def _no_such_profile(name: str) -> str:
    names = profile_names()
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return f"There is no profile {name!r}{hint} Known: {', '.join(names)}, or the path of a .yaml file."
