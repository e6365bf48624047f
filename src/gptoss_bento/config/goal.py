"""What a server is tuned for. A profile holds the settings of each goal."""

from __future__ import annotations

from enum import StrEnum

from gptoss_bento.spelling import nearest


class Goal(StrEnum):
    """Source of the trade-off: "Balancing between Throughput and Latencies" in vLLM's GPT-OSS guide."""

    LATENCY = "latency"  # each user's tokens come fast; few users at a time
    BALANCED = "balanced"  # vLLM's own balance
    THROUGHPUT = "throughput"  # most tokens a second over all users; text comes in larger pieces
    BENCHMARK = "benchmark"  # throughput without prefix cache, so that repeated prompts do not flatter


def parse_goal(text: str) -> Goal:
    """Raises ValueError with all goals, and the nearest first where one is near."""
    word = text.strip().lower()
    if word in list(Goal):
        return Goal(word)
    close = nearest(word, Goal)
    raise ValueError(f"{', '.join(Goal)}" + (f"; did you mean {str(close)!r}?" if close else ""))
