"""The routes whose POSTs make the engine render a prompt of stored items, and generate nothing. Pure."""

from __future__ import annotations

from gptoss_bento.http.paths import CONVERSATIONS, INPUT_TOKENS, destination

_RENDERING = frozenset({INPUT_TOKENS, CONVERSATIONS, f"{CONVERSATIONS}/{{id}}/items"})


def renders(path: str) -> bool:
    """Whether a POST to this path of the engine's application is admitted as one that generates is.

    A long history takes as much time of the event loop as a prompt of it does.
    """
    found = destination(path)
    return found is not None and found.route in _RENDERING
