"""The tokens of a batch's answers, as OpenAI's BatchUsage. Pure."""

from __future__ import annotations

from typing import Any


class UsageSum:
    """Sums what answers of chats, completions and responses say."""

    def __init__(self) -> None:
        self._input = self._cached = self._output = self._reasoning = 0

    def add(self, body: Any) -> None:
        """Counts an answer; one without usage changes nothing."""
        usage = body.get("usage") if isinstance(body, dict) else None
        if not isinstance(usage, dict):
            return
        self._input += _number(usage, "input_tokens") or _number(usage, "prompt_tokens")
        self._output += _number(usage, "output_tokens") or _number(usage, "completion_tokens")
        for name in ("input_tokens_details", "prompt_tokens_details"):
            self._cached += _number(usage.get(name), "cached_tokens")
        for name in ("output_tokens_details", "completion_tokens_details"):
            self._reasoning += _number(usage.get(name), "reasoning_tokens")

    def as_object(self) -> dict[str, Any]:
        """OpenAI's BatchUsage."""
        return {
            "input_tokens": self._input,
            "input_tokens_details": {"cached_tokens": self._cached},
            "output_tokens": self._output,
            "output_tokens_details": {"reasoning_tokens": self._reasoning},
            "total_tokens": self._input + self._output,
        }


def _number(holder: Any, name: str) -> int:
    value = holder.get(name) if isinstance(holder, dict) else None
    return value if isinstance(value, int) else 0
