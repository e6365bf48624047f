"""What the requests of a load ask: prompts of words, and how long the answers are to be."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import quantiles

PROMPT_WORDS = 48
_GOLDEN_RATIO = 0.618034  # its multiples modulo 1 spread evenly, and neighbours are far apart


def lengths(requests: int, average: int, spread: float = 0.5) -> list[int]:
    """How many tokens each answer has: from 1 - spread to 1 + spread of the average, the same in every measurement.

    If all were of one length, streams that begin together would end together, wave after wave, and the time to the
    first token would depend on the engine step in which the middle of a wave is taken in, which a millisecond decides.
    """
    least, kinds = int(average * (1 - spread)), 2 * average * spread + 1
    return [max(1, least + int(number * _GOLDEN_RATIO % 1 * kinds)) for number in range(requests)]


def prompt(number: int) -> str:
    """Each begins differently, so that no request finds another one's prefix in the cache."""
    return f"{number} " + "word " * PROMPT_WORDS


def p99(values: Sequence[float]) -> float:
    """The 99th percentile; a single value is its own."""
    return quantiles(values, n=100, method="inclusive")[98] if len(values) > 1 else values[0]
