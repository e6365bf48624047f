"""The names of all environment variables and what becomes of each: variables.yaml, vLLM's options, our own settings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from gptoss_bento.config.settings import ServerSettings, is_unset
from gptoss_bento.config.vllm_options import known_options
from gptoss_bento.spelling import nearest

# vLLM options that are none here: BentoML or this server decides them, or they are keys, which belong in no command
# line.
RESERVED = frozenset(
    ["config", "headless", "help", "host", "port", "grpc", "grpc_port", "model_tag", "api_key", "hf_token"]
)

VISIBLE_DEVICES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
"""What limits the GPUs of a process: an empty one shows none."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Alias(_Strict):
    """Another name of a vLLM option, or (with `key`) of one entry of a structured one."""

    option: str
    help: str
    inverted: bool = Field(False, alias="not")
    weak: bool = False
    key: str | None = None
    type: Literal["text", "positive"] = "text"
    implies: Mapping[str, str] = {}


class LibraryVariable(_Strict):
    """A variable that stays in the environment for a library."""

    help: str
    type: Literal["text", "bool", "digit", "python_backend"] = "text"


class Limits(_Strict):
    """Bounds of a number."""

    least: float | None = None
    above: float | None = None
    most: float | None = None

    def __str__(self) -> str:
        bounds = {"at least": self.least, "above": self.above, "at most": self.most}
        return " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)

    def holds(self, value: float) -> bool:
        """Whether the value is within the limits."""
        return (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
        )


class Catalogue(_Strict):
    """The content of variables.yaml, which explains its parts."""

    aliases: Mapping[str, Alias]
    removed: Mapping[str, str | None]
    library: Mapping[str, LibraryVariable]
    ignored: Mapping[str, str]
    limits: Mapping[str, Limits]
    refused: Mapping[str, Mapping[Any, str]]
    renamed_values: Mapping[str, Mapping[str, str]]
    cautions: Mapping[str, Mapping[Any, str]]
    zero_is_unset: tuple[str, ...]
    foreign: tuple[str, ...]


@cache
def catalogue() -> Catalogue:
    """Reads variables.yaml."""
    return Catalogue.model_validate(yaml.safe_load(files(__package__).joinpath("variables.yaml").read_text()))


@cache
def own_variables() -> Mapping[str, tuple[str, ...]]:
    """The variables of each of our settings, by field; the first is the documented one."""
    return {name: _names(name, info.validation_alias) for name, info in ServerSettings.model_fields.items()}


def _names(field: str, alias: object) -> tuple[str, ...]:
    if isinstance(alias, AliasChoices):
        return tuple(str(choice) for choice in alias.choices)
    return (field.upper(),)


@cache
def vllm_variables() -> frozenset[str]:
    """The environment variables that vLLM itself reads; recorded, as its options are."""
    return frozenset(json.loads(files(__package__).joinpath("vllm_variables.json").read_text()))


@cache
def unhashed_variables() -> frozenset[str]:
    """Those of them that change nothing that is compiled, as vLLM itself says; recorded."""
    return frozenset(json.loads(files(__package__).joinpath("vllm_unhashed_variables.json").read_text()))


@cache
def known_names() -> frozenset[str]:
    """Every variable that has a meaning here."""
    own = [name for names in own_variables().values() for name in names]
    listed = catalogue()
    options = [option.variable for option in known_options().values()]
    return frozenset(
        [*own, *listed.aliases, *listed.removed, *listed.library, *listed.ignored, *options, *vllm_variables()]
    )


def unset_library_variables(environ: Mapping[str, str]) -> list[str]:
    """The variables of libraries that are there and say nothing; an empty list of GPUs says that there are none."""
    return [name for name in catalogue().library if name not in VISIBLE_DEVICES and is_unset(environ.get(name, "x"))]


# Kubernetes announces a service called "vllm" in this way.
_KUBERNETES = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP)(_\w+)?)$")
_SHORTEST_TYPO = 6
_LIKENESS = 0.86


def typos(names: Iterable[str]) -> dict[str, str]:
    """The unknown names among these that look like known ones, and the one that each was probably meant to be."""
    suspects = set(names) - known_names() - set(catalogue().foreign)
    # vLLM also reads variables of other programs, such as LD_LIBRARY_PATH, and LIBRARY_PATH is another of theirs.
    meant = {name for name in known_names() if name.startswith("VLLM_") or name not in vllm_variables()}
    found: dict[str, str] = {}
    for name in sorted(suspects):
        if len(name) >= _SHORTEST_TYPO and name.isupper() and not _KUBERNETES.match(name):
            close = nearest(name, meant, _LIKENESS)
            found |= {name: close} if close else {}
    return found
