"""What is no text in a request's messages."""

from __future__ import annotations

from typing import Any

import pytest

from gptoss_bento.http.errors import FieldError
from gptoss_bento.http.fields.parts import refuse_other_than_text
from gptoss_bento.http.paths import CHAT, CHAT_BATCH, COMPLETIONS, COUNT_TOKENS, MESSAGES, RESPONSES

TEXT = {"type": "text", "text": "x"}
IMAGE = {"type": "image_url", "image_url": {"url": "https://pics.example/cat.png"}}
SOURCE = {"type": "base64", "media_type": "image/png", "data": "AA=="}


def user(*parts: Any, role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": list(parts)}]}


def tool_result(*parts: Any) -> dict[str, Any]:
    return user({"type": "tool_result", "tool_use_id": "t", "content": list(parts)})


def items(*given: Any) -> dict[str, Any]:
    return {"input": list(given)}


REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    (CHAT, user(TEXT, IMAGE), "messages[0].content[1].type", "image_url"),
    (CHAT, user(IMAGE), "messages[0].content[0].type", "image_url"),
    (
        CHAT,
        user({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}),
        "messages[0].content[0].type",
        "input_audio",
    ),
    (CHAT, user({"type": "audio_url", "audio_url": {"url": "u"}}), "messages[0].content[0].type", "audio_url"),
    (CHAT, user({"type": "video_url", "video_url": {"url": "u"}}), "messages[0].content[0].type", "video_url"),
    (CHAT, user({"type": "file", "file": {"file_id": "f"}}), "messages[0].content[0].type", "file"),
    (CHAT, user({"type": "image_embeds", "image_embeds": "AA"}), "messages[0].content[0].type", "image_embeds"),
    (CHAT, user({"type": "refusal", "refusal": "no"}, role="assistant"), "messages[0].content[0].type", "refusal"),
    (CHAT, user({"type": "thinking", "thinking": "no"}, role="assistant"), "messages[0].content[0].type", "thinking"),
    (CHAT, user(TEXT, IMAGE, role="tool"), "messages[0].content[1].type", "image_url"),
    (CHAT, user(TEXT, IMAGE, role="system"), "messages[0].content[1].type", "image_url"),
    (CHAT, user({"image_url": "u"}), "messages[0].content[0].type", "image_url"),
    (CHAT, user({"type": 5, "text": "x"}), "messages[0].content[0].type", "5"),
    (CHAT, user({"type": ["text"], "text": "x"}), "messages[0].content[0].type", "text"),
    (CHAT, {"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, "messages[0].audio", "reads text"),
    (CHAT, {"messages": [{"role": "user", "content": "x", "images": ["AA"]}]}, "messages[0].images", "reads text"),
    (
        CHAT,
        {"messages": [{"role": "assistant", "function_call": {"name": "f"}}]},
        "messages[0].function_call",
        "tool_calls",
    ),
    ("/tokenize", user(IMAGE), "messages[0].content[0].type", "image_url"),
    (CHAT_BATCH, {"messages": [[], user(TEXT, IMAGE)["messages"]]}, "messages[1][0].content[1].type", "image_url"),
    (
        RESPONSES,
        items("x", {"role": "user", "content": [{"type": "input_image", "image_url": "u"}]}),
        "input[1].content[0].type",
        "input_image",
    ),
    (
        RESPONSES,
        items({"role": "user", "content": [{"type": "input_file", "file_id": "u"}]}),
        "input[0].content[0].type",
        "input_file",
    ),
    (
        RESPONSES,
        items({"role": "user", "content": [{"type": "input_audio"}]}),
        "input[0].content[0].type",
        "input_audio",
    ),
    (
        RESPONSES,
        items({"type": "function_call_output", "output": [{"type": "input_image", "image_url": "u"}]}),
        "input[0].output[0].type",
        "input_image",
    ),
    (
        RESPONSES,
        {"input": "x", "previous_input_messages": user(IMAGE)["messages"]},
        "previous_input_messages[0].content[0].type",
        "image_url",
    ),
    (
        RESPONSES,
        {"input": "x", "previous_input_messages": [{"author": {"role": "user"}, "content": [IMAGE]}]},
        "previous_input_messages[0].content[0].type",
        "image_url",
    ),
    (MESSAGES, user(TEXT, {"type": "image", "source": SOURCE}), "messages[0].content[1].type", "image"),
    (MESSAGES, user({"type": "document", "source": SOURCE}), "messages[0].content[0].type", "document"),
    (MESSAGES, user({"type": "search_result"}), "messages[0].content[0].type", "search_result"),
    (MESSAGES, user({"type": "container_upload"}), "messages[0].content[0].type", "container_upload"),
    (
        MESSAGES,
        tool_result(TEXT, {"type": "image", "source": SOURCE}),
        "messages[0].content[0].content[1].type",
        "image",
    ),
    (
        MESSAGES,
        tool_result({"type": "document", "source": SOURCE}),
        "messages[0].content[0].content[0].type",
        "document",
    ),
    (MESSAGES, {"system": [{"type": "image", "source": SOURCE}]}, "system[0].type", "image"),
    (COUNT_TOKENS, user({"type": "image", "source": SOURCE}), "messages[0].content[0].type", "image"),
]
WRONG: list[Any] = [None, 5, "x", {}, [5], [None], ["x"], [{}], [{"content": 5}], [{"content": [None, 5]}]]
LEFT_TO_THE_ENGINE: list[tuple[str, dict[str, Any]]] = [
    (CHAT, user(TEXT, "x", {"text": "x"}, {"type": "input_text", "text": "x"})),
    (CHAT, {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": None, "audio": None}]}),
    *(
        (path, {name: wrong})
        for path in (CHAT, CHAT_BATCH, RESPONSES, MESSAGES)
        for name in ("messages", "input")
        for wrong in WRONG
    ),
    *(
        (RESPONSES, {"input": "x", "previous_input_messages": [{**of, "content": [{"type": f"{role}_content"}]}]})
        for role in ("system", "developer")
        for of in ({"role": role}, {"author": {"role": role}})
    ),
    (RESPONSES, items({"type": "reasoning", "content": [{"type": "reasoning_text", "text": "x"}]})),
    (RESPONSES, items({"role": "assistant", "content": [{"type": "output_text", "text": "x"}]})),
    (RESPONSES, items({"type": "function_call_output", "output": [{"type": "input_text", "text": "x"}]})),
    (
        MESSAGES,
        user(
            TEXT,
            {"type": "thinking", "thinking": "x"},
            {"type": "redacted_thinking", "data": "x"},
            {"type": "tool_use"},
            role="assistant",
        ),
    ),
    (MESSAGES, tool_result(TEXT, {"type": "tool_reference", "tool_name": "t"})),
    *((MESSAGES, {"system": wrong}) for wrong in WRONG[:7]),
    (MESSAGES, {"system": [TEXT], **user({"type": "tool_addition"}, role="system")}),
    (COMPLETIONS, user(IMAGE)),
    ("/detokenize", user(IMAGE)),
]


@pytest.mark.parametrize(("path", "body", "place", "told"), REFUSED)
def test_part_that_is_not_text_is_refused_with_its_place_and_type(
    path: str, body: dict[str, Any], place: str, told: str
) -> None:
    with pytest.raises(FieldError) as refused:
        refuse_other_than_text(path, body)

    assert refused.value.param == place
    assert str(refused.value).startswith(f"{place} ")
    assert told in str(refused.value)


@pytest.mark.parametrize(("path", "body"), LEFT_TO_THE_ENGINE)
def test_text_passes_and_a_wrong_shape_is_left_to_the_engine(path: str, body: dict[str, Any]) -> None:
    refuse_other_than_text(path, body)
