"""Calls of tools and their results as Harmony's messages."""

from __future__ import annotations

from typing import Any


def result_message(call: Any, text: str) -> Any:
    """What the model reads of a call: in the channel of the call, from the tool that was called.

    Args:
        call: the model's message.
        text: of the tool.
    """
    from openai_harmony import Author, Message, Role, TextContent

    author = Author(role=Role.TOOL, name=call.recipient)
    return Message(author=author, content=[TextContent(text=text)], recipient=Role.ASSISTANT, channel=call.channel)


def call_message(recipient: str, text: str, channel: str, content_type: str) -> Any:
    """A call as the model writes it."""
    from openai_harmony import Message, Role

    made = Message.from_role_and_content(Role.ASSISTANT, text).with_channel(channel).with_recipient(recipient)
    return made.with_content_type(content_type)


def mcp_call_message(label: str, name: str, arguments: str) -> Any:
    """A call of a tool of an MCP server, whose namespace is the server's label."""
    return call_message(f"{label}.{name}", arguments, "commentary", "json")


def text_of(message: Any) -> str:
    """The text of a message; the end of the output may leave one without."""
    return str(message.content[0].text) if message.content else ""
