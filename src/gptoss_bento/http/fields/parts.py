"""Refuses what is no text in the messages of a request: GPT-OSS reads text, and vLLM drops all else. Pure.

vLLM 0.32 takes the `text` of each part and passes over parts without (`flatten_input_text_content` and
`response_input_to_harmony`); of Anthropic's blocks it makes messages that go the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gptoss_bento.http.errors import FieldError
from gptoss_bento.http.paths import CHAT, CHAT_BATCH, COUNT_TOKENS, MESSAGES, RESPONSES
from gptoss_bento.strict_json import shown

_TEXT = frozenset({"text", "input_text", "output_text"})
_REASONING = frozenset({"reasoning_text", "text"})
_RESULT = frozenset({"text", "tool_reference"})  # of a tool, on Anthropic's routes
_BLOCKS = {
    "user": frozenset({"text", "tool_result", "tool_reference"}),
    "assistant": frozenset({"text", "thinking", "redacted_thinking", "tool_use", "tool_result", "tool_reference"}),
    "system": frozenset({"text", "tool_addition", "tool_removal"}),
}
# Beside the content of a chat's message, and what to use instead; vLLM reads none of them.
_BESIDE_CONTENT = {
    "audio": "GPT-OSS reads text",
    "images": "GPT-OSS reads text",
    "function_call": "use `tool_calls`",
}


def refuse_other_than_text(path: str, body: Mapping[str, Any]) -> None:
    """Looks through all messages of a request. What has another shape than it should is left to the engine.

    Args:
        path: the engine's route, without prefix.
        body: the request, as parsed JSON.

    Raises:
        FieldError: a part is no text. It names the place and the type.
    """
    if look := _ROUTES.get(path):
        look(body)


def _chat(body: Mapping[str, Any]) -> None:
    _messages(body.get("messages"), "messages")


def _batch(body: Mapping[str, Any]) -> None:
    conversations = body.get("messages")
    if isinstance(conversations, list):
        for number, messages in enumerate(conversations):
            _messages(messages, f"messages[{number}]")


def _messages(messages: Any, place: str) -> None:
    if not isinstance(messages, list):
        return
    for number, message in enumerate(messages):
        if isinstance(message, dict):
            content = message.get("content")
            if isinstance(content, list):
                _parts(content, f"{place}[{number}].content", _TEXT)
            if not _BESIDE_CONTENT.keys().isdisjoint(message):
                _beside_content(message, f"{place}[{number}]")


def _beside_content(message: Mapping[str, Any], place: str) -> None:
    for name, instead in _BESIDE_CONTENT.items():
        if message.get(name):
            raise FieldError(f"{place}.{name}", f"{place}.{name} is not read: {instead}.")


def _responses(body: Mapping[str, Any]) -> None:
    items = body.get("input")
    if isinstance(items, list):
        for number, item in enumerate(items):
            if isinstance(item, dict):
                _item(item, f"input[{number}]")
    _messages(body.get("previous_input_messages"), "previous_input_messages")


def _item(item: Mapping[str, Any], place: str) -> None:
    content, output = item.get("content"), item.get("output")
    if isinstance(content, list):
        _parts(content, f"{place}.content", _REASONING if item.get("type") == "reasoning" else _TEXT)
    if isinstance(output, list) and item.get("type") == "function_call_output":
        _parts(output, f"{place}.output", _TEXT)


def _anthropic(body: Mapping[str, Any]) -> None:
    system, messages = body.get("system"), body.get("messages")
    if isinstance(system, list):
        _parts(system, "system", frozenset({"text"}))
    if not isinstance(messages, list):
        return
    for number, message in enumerate(messages):
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            _blocks(content, f"messages[{number}].content", _BLOCKS.get(str(message.get("role")), _TEXT))


def _blocks(blocks: list[Any], place: str, allowed: frozenset[str]) -> None:
    _parts(blocks, place, allowed)
    for number, block in enumerate(blocks):
        if isinstance(block, dict) and isinstance(block.get("content"), list):
            _parts(block["content"], f"{place}[{number}].content", _RESULT)


def _parts(parts: list[Any], place: str, allowed: frozenset[str]) -> None:
    for number, part in enumerate(parts):
        if not isinstance(part, dict):
            continue
        kind = part.get("type")
        if kind is None:
            _refuse_untyped(part, f"{place}[{number}]")
        elif not isinstance(kind, str) or kind not in allowed:
            told = " or ".join(f'"{name}"' for name in sorted(allowed))
            where = f"{place}[{number}].type"
            raise FieldError(where, f"{where} must be {told}, got {shown(kind)}: GPT-OSS reads text.")


def _refuse_untyped(part: Mapping[str, Any], place: str) -> None:
    """vLLM reads the text of a part without a type, and knows others by their field."""
    if "text" not in part:
        found = shown(next(iter(part), None))
        raise FieldError(f"{place}.type", f'{place}.type is missing, and {found} is no "text": GPT-OSS reads text.')


_ROUTES: Mapping[str, Callable[[Mapping[str, Any]], None]] = {
    CHAT: _chat,
    CHAT_BATCH: _batch,
    RESPONSES: _responses,
    MESSAGES: _anthropic,
    COUNT_TOKENS: _anthropic,
}
