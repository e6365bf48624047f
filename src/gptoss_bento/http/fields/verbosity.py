"""`verbosity`, which GPT-OSS has no setting for, as a sentence of the instructions. Pure.

It would change the length of the answer, so ignoring it would be silent; and clients send it on their own account:
Codex sends `low` to every model whose name begins with gpt-5, so refusing it would refuse Codex. `medium` is what a
model does without being asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptoss_bento.http.errors import FieldError
from gptoss_bento.http.paths import CHAT, CHAT_BATCH
from gptoss_bento.strict_json import shown

SENTENCES: Mapping[str, str] = {
    "low": "Keep the final answer short: only what was asked for, in as few words as it takes.",
    "medium": "",
    "high": "Make the final answer detailed: explain it, and cover what belongs to it.",
}
"""What the model reads for each value of the field."""

_INSTRUCTING = ("system", "developer")


def verbosity(path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The field of a chat as a sentence after its instructions, or as its only one.

    Raises:
        FieldError: it has another value than OpenAI's three.
    """
    if path in (CHAT, CHAT_BATCH) and (value := body.get("verbosity")) is not None:
        return {"verbosity": None, **_in_chat(path, body.get("messages"), _sentence("verbosity", value))}
    return {}


def verbosity_of_response(body: Mapping[str, Any]) -> dict[str, Any]:
    """`text.verbosity` as a sentence after the instructions, or as the only one, of what the engine gets.

    Not as a change of the request: its items are stored as they are, and a later request has its own verbosity.

    Args:
        body: with the whole input.

    Raises:
        FieldError: it has another value than OpenAI's three.
    """
    text = body.get("text")
    if isinstance(text, Mapping) and (value := text.get("verbosity")) is not None:
        return _in_response(body, _sentence("text.verbosity", value))
    return {}


def _sentence(name: str, value: Any) -> str:
    if not isinstance(value, str) or value not in SENTENCES:
        raise FieldError(name, f'{name} must be "low", "medium" or "high", got {shown(value)}.')
    return SENTENCES[value]


def _in_chat(path: str, messages: Any, sentence: str) -> dict[str, Any]:
    if not sentence or not isinstance(messages, list):
        return {}  # the engine refuses a chat without messages
    if path == CHAT_BATCH:
        return {"messages": [_after_first(each, sentence) if isinstance(each, list) else each for each in messages]}
    return {"messages": _after_first(messages, sentence)}


def _in_response(body: Mapping[str, Any], sentence: str) -> dict[str, Any]:
    """In `instructions` or in the first item of `input`, whichever instructs."""
    items, instructions = body.get("input"), body.get("instructions")
    if not sentence:
        return {}
    if instructions is None and isinstance(items, list) and items and _instructs(items[0]):
        return {"input": _after_first(items, sentence)}
    if instructions is None or isinstance(instructions, str):
        return {"instructions": f"{instructions}\n\n{sentence}" if instructions else sentence}
    return {}  # the engine refuses them


def _after_first(messages: list[Any], sentence: str) -> list[Any]:
    """In the first message, if it instructs; otherwise in a message before it."""
    if not messages or not _instructs(messages[0]):
        return [_instruction(sentence), *messages]
    first, content = messages[0], messages[0].get("content")
    if isinstance(content, list):
        return [{**first, "content": [*content, {"type": _type_of(content), "text": f"\n\n{sentence}"}]}, *messages[1:]]
    return [{**first, "content": f"{content}\n\n{sentence}"}, *messages[1:]]


def _instructs(message: Any) -> bool:
    is_one = isinstance(message, Mapping) and message.get("role") in _INSTRUCTING
    return is_one and isinstance(message.get("content"), str | list)


def _type_of(content: list[Any]) -> str:
    """Of a text part beside these: chats call it `text`, responses `input_text`."""
    types = [part.get("type") for part in content if isinstance(part, Mapping)]
    return "input_text" if "input_text" in types else "text"


def _instruction(sentence: str) -> dict[str, Any]:
    return {"role": "developer", "content": sentence}
