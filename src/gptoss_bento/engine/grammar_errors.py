"""A constraint that cannot be compiled, in the words of its compiler, without its places in C++."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from cachetools import LRUCache

_KEPT = 1024  # the check takes a millisecond for each tool, and clients send the same tools with each turn
_PLACE = re.compile(r"^\s*\[[\d:]+\] \S+?:\d+: ")
_CHECK = re.compile(r"^Check failed: .*? is false: ")


def explained(
    validate: Callable[[Any], None], refusal: type[Exception], error: Callable[[str], Exception]
) -> Callable[[Any], None]:
    """Checks constraints, each once; what xgrammar refuses is refused with its reason.

    vLLM would go on to guidance, which reads no structural tag of this form, and all constraints of GPT-OSS are such
    tags: "Invalid grammar specification: 'triggers'".

    Args:
        validate: vLLM's check with xgrammar.
        refusal: what it raises, and what makes vLLM go on.
        error: makes one that it does not go on after, and answers with 400.
    """

    right: LRUCache[bytes, None] = LRUCache(_KEPT)

    def check(params: Any) -> None:
        tag = getattr(params.structured_outputs, "structural_tag", None)
        name = blake2b(tag.encode(errors="surrogatepass")).digest() if tag else None
        if name in right:
            return
        try:
            validate(params)
        except refusal as refused:
            if _is_new(tag):
                raise error(f"The constraint of this request cannot be enforced: {_reason(refused)}") from refused
            raise
        if name:
            right[name] = None

    return check


def _is_new(tag: str | None) -> bool:
    try:
        return tag is not None and "format" in json.loads(tag)
    except ValueError:
        return False


def _reason(error: Exception) -> str:
    text = str(error.__cause__ or error)
    return _CHECK.sub("", _PLACE.sub("", text)).strip().rstrip(".") + "."
