"""Refuses what is no text in the messages of a request: GPT-OSS reads text, and vLLM drops all else. Pure.

vLLM 0.32 takes the `text` of each part and passes over parts without (`flatten_input_text_content` and
`response_input_to_harmony`); of Anthropic's blocks it makes messages that go the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gptoss_bento.http.errors import FieldError
from gptoss_bento.http.paths import CHAT, CHAT_BATCH, COMPACT, COUNT_TOKENS, INPUT_TOKENS, MESSAGES, RESPONSES, TOKENIZE
from gptoss_bento.strict_json import shown


class _Types(NamedTuple):
    """The types that a part may have, and how a refusal lists them: without those of other routes."""

    allowed: frozenset[str]
    listed: str


def _types(*names: str, also: tuple[str, ...] = ()) -> _Types:
    return _Types(frozenset({*names, *also}), " or ".join(f'"{name}"' for name in names))


_OF_CHAT = _types("text", also=("input_text", "output_text"))
_OF_ITEMS = _types("input_text", "output_text", also=("text",))
_OF_REASONING = _types("reasoning_text", also=("text",))
_OF_RESULTS = _types("text", also=("tool_reference",))  # of a tool, on Anthropic's routes
_OF_SYSTEM = _types("text")
_OF_BLOCKS = {
    "user": _types("text", "tool_result", also=("tool_reference",)),
    "assistant": _types("text", "thinking", "tool_use", also=("redacted_thinking", "tool_result", "tool_reference")),
    "system": _types("text", "tool_addition", "tool_removal"),
}
# Beside the content of a chat's message, and what to use instead; vLLM reads none of them.
_BESIDE_TEXT = {
    "audio": "GPT-OSS reads text",
    "images": "GPT-OSS reads text",
    "function_call": "use `tool_calls`",
}
_BESIDE_PARTS = {**_BESIDE_TEXT, **dict.fromkeys(("audio", "images"), "use parts of `content`")}


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


def refuse_beside_content(path: str, body: Mapping[str, Any]) -> None:
    """The same for a model of another architecture, which may read media: only what vLLM reads of no message.

    Args:
        path: the engine's route, without prefix.
        body: the request, as parsed JSON.

    Raises:
        FieldError: a message of a chat has it.
    """
    messages = body.get("messages") if path in (CHAT, TOKENIZE) else None
    for number, message in enumerate(messages if isinstance(messages, list) else ()):
        if isinstance(message, dict):
            _beside_content(message, f"messages[{number}]", _BESIDE_PARTS)


def _chat(body: Mapping[str, Any]) -> None:
    _messages(body.get("messages"), "messages")


def _batch(body: Mapping[str, Any]) -> None:
    conversations = body.get("messages")
    if isinstance(conversations, list):
        for number, messages in enumerate(conversations):
            _messages(messages, f"messages[{number}]")


def _messages(messages: Any, place: str, is_read: Callable[[Mapping[str, Any]], bool] = lambda _: True) -> None:
    if not isinstance(messages, list):
        return
    for number, message in enumerate(messages):
        if isinstance(message, dict) and is_read(message):
            content = message.get("content")
            if isinstance(content, list):
                _parts(content, f"{place}[{number}].content", _OF_CHAT)
            _beside_content(message, f"{place}[{number}]", _BESIDE_TEXT)


def _beside_content(message: Mapping[str, Any], place: str, unread: Mapping[str, str]) -> None:
    if unread.keys().isdisjoint(message):
        return
    for name, instead in unread.items():
        if message.get(name):
            raise FieldError(f"{place}.{name}", f"{place}.{name} is not read: {instead}.")


def _responses(body: Mapping[str, Any]) -> None:
    items = body.get("input")
    if isinstance(items, list):
        for number, item in enumerate(items):
            if isinstance(item, dict):
                _item(item, f"input[{number}]")
    _messages(body.get("previous_input_messages"), "previous_input_messages", _is_read)


def _is_read(message: Mapping[str, Any]) -> bool:
    """vLLM makes both of each request's own fields, and lists them as parts that are no text."""
    author = message.get("author")
    role = author.get("role") if isinstance(author, dict) else message.get("role")
    return role not in ("system", "developer")


def _item(item: Mapping[str, Any], place: str) -> None:
    content, output = item.get("content"), item.get("output")
    if isinstance(content, list):
        _parts(content, f"{place}.content", _OF_REASONING if item.get("type") == "reasoning" else _OF_ITEMS)
    if isinstance(output, list) and item.get("type") in ("function_call_output", "custom_tool_call_output"):
        _parts(output, f"{place}.output", _OF_ITEMS)


def _anthropic(body: Mapping[str, Any]) -> None:
    system, messages = body.get("system"), body.get("messages")
    if isinstance(system, list):
        _parts(system, "system", _OF_SYSTEM)
    if not isinstance(messages, list):
        return
    for number, message in enumerate(messages):
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            _blocks(content, f"messages[{number}].content", _OF_BLOCKS.get(str(message.get("role")), _OF_CHAT))


def _blocks(blocks: list[Any], place: str, types: _Types) -> None:
    _parts(blocks, place, types)
    for number, block in enumerate(blocks):
        if isinstance(block, dict) and isinstance(block.get("content"), list):
            _parts(block["content"], f"{place}[{number}].content", _OF_RESULTS)


def _parts(parts: list[Any], place: str, types: _Types) -> None:
    for number, part in enumerate(parts):
        if not isinstance(part, dict):
            continue
        kind = part.get("type")
        if kind is None:
            _refuse_untyped(part, f"{place}[{number}]")
        elif not isinstance(kind, str) or kind not in types.allowed:
            where = f"{place}[{number}].type"
            raise FieldError(where, f"{where} must be {types.listed}, got {shown(kind)}: GPT-OSS reads text.")


def _refuse_untyped(part: Mapping[str, Any], place: str) -> None:
    """vLLM reads the text of a part without a type, and knows others by their field."""
    if "text" not in part:
        found = shown(next(iter(part), None))
        raise FieldError(f"{place}.type", f'{place}.type is missing, and {found} is no "text": GPT-OSS reads text.')


_ROUTES: Mapping[str, Callable[[Mapping[str, Any]], None]] = {
    CHAT: _chat,
    CHAT_BATCH: _batch,
    TOKENIZE: _chat,
    RESPONSES: _responses,
    INPUT_TOKENS: _responses,
    COMPACT: _responses,
    MESSAGES: _anthropic,
    COUNT_TOKENS: _anthropic,
}
