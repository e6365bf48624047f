"""The channel of what the model says before it calls a function: commentary, as the model wrote it.

vLLM gives each message of an assistant among the items of a response the channel `final`, and a prompt has no
reasoning that comes before the last message of that channel. So a model that reasons, says what it is about to do, and
calls a function would read the function's result without knowing why it called it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Render = Callable[..., Any]


def in_commentary(render: Render) -> Render:
    """Renders messages of Harmony with each preamble in the commentary channel.

    Args:
        render: vLLM's method of its renderer.
    """

    def rendered(renderer: Any, messages: Sequence[Any], **options: Any) -> Any:
        return render(renderer, with_preambles(messages), **options)

    return rendered


def with_preambles(messages: Sequence[Any]) -> list[Any]:
    """The messages; one of channel `final` that a call follows, before anyone else speaks, is a copy in commentary."""
    made: list[Any] = []
    is_before_call = False
    for message in reversed(messages):
        if message.author.role != "assistant":
            is_before_call = False
        elif message.recipient:
            is_before_call = True
        elif is_before_call and message.channel == "final":
            message = message.model_copy(update={"channel": "commentary"})  # the original is the caller's
        made.append(message)
    return made[::-1]
