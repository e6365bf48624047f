"""How many generations one request starts: for each prompt of a list `n`; it counts as so many requests. Pure.

Fields are those of vLLM 0.32, which by itself takes an `n` of up to 16,384 and 1,024 prompts (vllm/envs.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gptoss_bento.access.request_caps import CapError
from gptoss_bento.http.paths import CHAT, CHAT_BATCH, COMPLETIONS

_COUNTABLE = 10**9  # larger numbers are not printed: Python limits the digits that it converts
_WHOLE = TypeAdapter(int)


def generations_of(path: str, body: Mapping[str, Any]) -> int:
    """Those of a parsed request. 1 for what the engine will refuse."""
    count = _PROMPTS.get(path)
    return count(body) * _n(body) if count else 1


def refuse_more_than(most: int, who: str, generations: int) -> None:
    """Refuses a request that could never be admitted, however long it waits.

    Args:
        most: generations at the same time.
        who: the owner of that bound, as the subject of the message.
        generations: of one request.

    Raises:
        CapError: they are more.
    """
    if generations > most:
        shown = generations if generations < _COUNTABLE else f"over {_COUNTABLE}"
        raise CapError("n", f"{who} takes {most} concurrent generations; n times the number of prompts is {shown}.")


def _n(body: Mapping[str, Any]) -> int:
    """As the engine's own models read it, for which `"2"` is 2."""
    try:
        return max(1, _WHOLE.validate_python(body.get("n", 1)))
    except ValidationError:
        return 1


def _prompts(body: Mapping[str, Any]) -> int:
    return max(1, _length(body.get("prompt")) + _length(body.get("prompt_embeds")))


def _length(given: Any) -> int:
    """Of a list of texts, of token lists or of embeddings; a list of numbers is one prompt."""
    is_list = isinstance(given, list) and given and not isinstance(given[0], (int, float))
    return len(given) if is_list else 0


_PROMPTS: dict[str, Callable[[Mapping[str, Any]], int]] = {
    CHAT: lambda _: 1,
    COMPLETIONS: _prompts,
    CHAT_BATCH: lambda body: max(1, _length(body.get("messages"))),
}
