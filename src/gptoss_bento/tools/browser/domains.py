"""Which sites the browser may visit: lists of the operator and of the request. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_OWN_LETTERS: Final = frozenset("ßς\u200c\u200d")
"""Deviations of UTS 46: letters of domains since IDNA 2008, which before were written otherwise or left out."""


@dataclass(frozen=True)
class DomainRule:
    """Domains with all below them: `example.com` is `www.example.com` too.

    Attributes:
        allowed: those alone, if there are any.
        blocked: none of those; it comes before what is allowed.
    """

    allowed: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()

    @classmethod
    def of(cls, allowed: Iterable[str] = (), blocked: Iterable[str] = ()) -> DomainRule:
        """The rule of two lists, however their domains are written."""
        return cls(tuple(map(_normal, allowed)), tuple(map(_normal, blocked)))

    def allows(self, host: str) -> bool:
        """Whether a host may be visited."""
        name = _normal(host)
        if any(_is_in(name, domain) for domain in self.blocked):
            return False
        return not self.allowed or any(_is_in(name, domain) for domain in self.allowed)


@dataclass(frozen=True)
class DomainRules:
    """The operator's rule and the request's: a host must pass both."""

    rules: tuple[DomainRule, ...] = ()

    def allows(self, host: str) -> bool:
        """Whether every rule lets a host through."""
        return all(rule.allows(host) for rule in self.rules)

    @property
    def allowed(self) -> tuple[str, ...]:
        """Domains to search in, none for all: those of the first list that another list does not narrow."""
        lists = [rule.allowed for rule in self.rules if rule.allowed]
        return tuple(domain for domain in lists[-1] if self.allows(domain)) if lists else ()

    @property
    def blocked(self) -> tuple[str, ...]:
        """Domains to leave out of a search."""
        return tuple(domain for rule in self.rules for domain in rule.blocked)


def ascii_name(name: str) -> str:
    """A name as it is looked up. Python's own codec takes `ß` for `ss`, which is another domain since IDNA 2008.

    Raises:
        UnicodeError: it is no name.
    """
    if not _OWN_LETTERS & set(name):
        return name.encode("idna").decode()
    labels = (unicodedata.normalize("NFC", label) for label in name.split("."))
    return ".".join(label if label.isascii() else f"xn--{label.encode('punycode').decode()}" for label in labels)


def _normal(domain: str) -> str:
    name = domain.strip().lower().removeprefix("*.").strip(".")
    try:
        return ascii_name(name)
    except UnicodeError:
        return name


def _is_in(host: str, domain: str) -> bool:
    return host == domain or host.endswith("." + domain)
