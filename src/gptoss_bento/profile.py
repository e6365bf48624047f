"""`configs/*.yaml` → `Profile`: what a bundle serves, what BentoML should give it, and vLLM's arguments by hardware."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from gptoss_bento.errors import ConfigurationError
from gptoss_bento.hardware import Hardware
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
    reason: str = ""


class Engine(_Strict):
    """vLLM options by name, and variables of the engine's process."""

    arguments: dict[str, Any] = {}
    environment: dict[str, str] = {}

    @field_validator("arguments")
    @classmethod
    def _known(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        if unknown := [name for name in arguments if name not in known_options()]:
            raise ValueError(f"not options of vLLM: {', '.join(unknown)}")
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
    except FileNotFoundError:
        raise ConfigurationError(_no_such_profile(name)) from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path.name} is not valid YAML: {error}") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise ConfigurationError(f"{path.name}: {problems}") from None


def automatic_profile(hardware: Hardware, names: Sequence[str] = ("gpt-oss-20b",)) -> str:
    """The profile for a machine whose operator named none: the first of `names` that fits its GPUs, else `demo`."""
    return next((name for name in names if fits(load_profile(name), hardware)), "demo")


def fits(profile: Profile, hardware: Hardware) -> bool:
    """Whether the hardware meets the profile's requirements."""
    total = sum(gpu.memory_gib for gpu in hardware.gpus)
    return len(hardware.gpus) >= profile.requires.gpus and total >= profile.requires.total_gpu_memory_gib


def _no_such_profile(name: str) -> str:
    names = profile_names()
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"There is no profile {name!r}{hint} Known: {', '.join(names)}, or the path of a .yaml file."
