"""Conversations, with OpenAI's own SDK on the real server and the real engine."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai.types.conversations import Conversation, ConversationItemList
from openai.types.responses import Response

from tests.integration.test_responses import BLOCK, LONG, WEATHER, events_of
from tests.server import MODEL

pytestmark = pytest.mark.engine


def test_turn_begins_with_the_tokens_of_the_turns_before(client: openai.OpenAI) -> None:
    conversation = client.conversations.create(metadata={"a": "b"})
    asked: dict[str, Any] = {"model": MODEL, "temperature": 0, "conversation": conversation.id}
    one = client.responses.create(input=f"Hello {LONG}", **asked)
    two = client.responses.create(input="Go on.", **asked)
    by_response = client.responses.create(model=MODEL, temperature=0, input="Go on.", previous_response_id=one.id)

    assert one.usage
    assert two.usage
    assert two.usage.input_tokens_details.cached_tokens == one.usage.input_tokens // BLOCK * BLOCK > 0
    assert by_response.usage
    assert by_response.usage.input_tokens == two.usage.input_tokens
    assert by_response.output_text == two.output_text
    assert two.conversation
    assert two.conversation.id == conversation.id
    Response.model_validate(two.to_dict(), strict=True)
    assert client.responses.retrieve(two.id) == two


def test_items_of_turns_and_of_the_client_are_listed_and_used(client: openai.OpenAI) -> None:
    hello: Any = {"role": "user", "content": "My name is Ada."}
    answer: Any = {"role": "assistant", "content": "Hello, Ada."}
    conversation = client.conversations.create(items=[hello])
    added = client.conversations.items.create(conversation.id, items=[answer])
    ConversationItemList.model_validate(added.to_dict(), strict=True)
    events = events_of(client, input="What is my name?", conversation=conversation.id)
    assert "Ada" in events[-1].response.output_text

    listed = client.conversations.items.list(conversation.id, order="asc")
    items: list[Any] = list(listed)
    assert [item.role for item in items if item.type == "message"] == ["user", "assistant", "user", "assistant"]
    assert items[-1].content[0].text == events[-1].response.output_text
    assert client.conversations.items.retrieve(items[-1].id, conversation_id=conversation.id) == items[-1]
    again: Any = [item.to_dict() for item in items]
    client.responses.create(model=MODEL, input=again, max_output_tokens=8)  # as sessions of the Agents SDK send them


def test_call_of_a_function_is_answered_within_the_conversation(client: openai.OpenAI) -> None:
    conversation = client.conversations.create()
    asked: dict[str, Any] = {"model": MODEL, "temperature": 0, "tools": [WEATHER], "conversation": conversation.id}
    call = client.responses.create(input="What is the weather in Paris?", **asked).output[-1]
    assert call.type == "function_call"
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny, 21 degrees"}
    two = client.responses.create(input=[output], **asked)

    assert "21" in two.output_text
    listed = client.conversations.items.list(conversation.id)
    ConversationItemList.model_validate({**listed.to_dict(), "first_id": "", "object": "list"}, strict=True)
    assert "function_call_output" in [item.type for item in listed]


def test_items_that_the_engine_cannot_read_are_refused(client: openai.OpenAI) -> None:
    output: Any = {"type": "function_call_output", "call_id": "call_none", "output": "21"}
    with pytest.raises(openai.BadRequestError, match="call_none") as no_call:
        client.conversations.create(items=[output])
    future: Any = {"type": "future"}
    with pytest.raises(openai.BadRequestError) as unknown:
        client.conversations.create(items=[future])
    image: Any = {"role": "user", "content": [{"type": "input_image", "image_url": "https://example.com/a.png"}]}
    with pytest.raises(openai.BadRequestError) as not_text:
        client.conversations.create(items=[image])

    assert no_call.value.param == "items"
    assert str(unknown.value.param).startswith("items")
    assert not_text.value.param == "items[0].content[0].type"
    long: Any = {"role": "user", "content": "word " * 200_000}
    client.conversations.create(items=[long])  # beyond the context, which is no fault of an item


def test_conversation_is_updated_and_deleted(client: openai.OpenAI) -> None:
    conversation = client.conversations.create()
    updated = client.conversations.update(conversation.id, metadata={"topic": "x"})
    Conversation.model_validate(updated.to_dict(), strict=True)
    assert client.conversations.retrieve(conversation.id) == updated
    assert client.conversations.delete(conversation.id).deleted

    with pytest.raises(openai.NotFoundError):
        client.conversations.retrieve(conversation.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model=MODEL, input="x", conversation=conversation.id)
