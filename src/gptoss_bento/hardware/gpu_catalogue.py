"""`gpus.yaml` → the cards known by name, and the family of each architecture. Reads this package's data only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict


class Card(BaseModel):
    """One kind of card. `names` are what its driver calls it, or distinctive parts of that."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vendor: Literal["nvidia", "amd"]
    names: tuple[str, ...]
    memory_mib: int
    architecture: str
    bentocloud: str | None = None

    def match(self, product_name: str) -> int:
        """How many characters of a driver's product name this card explains; 0 if it is another one."""
        found = (re.search(rf"\b{re.escape(name)}\b", product_name, re.IGNORECASE) for name in self.names)
        return max((len(match.group()) for match in found if match), default=0)


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    families: dict[str, tuple[str, ...]]
    cards: dict[str, Card]


@cache
def _content() -> _Content:
    return _Content.model_validate(yaml.safe_load(files(__package__).joinpath("gpus.yaml").read_text()))


def known_cards() -> Mapping[str, Card]:
    """All cards by key, such as `h100`."""
    return _content().cards


def families() -> frozenset[str]:
    """The names that tiers may use."""
    return frozenset(_content().families)


def family_of(architecture: str) -> str:
    """`hopper` for `sm_90`; empty for an architecture that the data does not name."""
    found = (family for family, members in _content().families.items() if architecture in members)
    return next(found, "")


def recognised(product_name: str) -> str | None:
    """The key of the card that a driver calls so; the longest name wins (`A10G` over `A10`). None: an unknown card."""
    matches = {key: card.match(product_name) for key, card in known_cards().items()}
    best = max(matches, key=matches.__getitem__)
    return best if matches[best] else None
