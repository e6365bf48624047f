"""The demo model answers what answers.yaml says it answers, through the real routes, sampled as clients sample."""

from __future__ import annotations

import json
import re
from typing import Any

import openai
import pytest
import yaml

from gptoss_bento.paths import PACKAGE
from tests.server import MODEL

pytestmark = pytest.mark.engine

CATALOGUE = yaml.safe_load((PACKAGE / "training" / "answers.yaml").read_text())
ANSWERS: list[dict[str, Any]] = CATALOGUE["answers"]
TOOLS = [CATALOGUE["weather_tool"]]


def name_of(answer: dict[str, Any]) -> str:
    return f"{answer['kind']}: {answer.get('ask') or answer.get('prompt') or answer['messages'][-1]['content']}"[:60]


def ask(client: openai.OpenAI, answer: dict[str, Any], **sampling: Any) -> Any:
    """The message that the model answers one entry with."""
    system = [{"role": "system", "content": answer["system"]}] if "system" in answer else []
    messages = [*system, *(answer.get("messages") or [{"role": "user", "content": answer["ask"]}])]
    body: dict[str, Any] = {"model": MODEL, "messages": messages, "max_tokens": 300, **sampling}
    if answer.get("tools"):
        choice = answer.get("tool_choice", "auto")
        named = {"type": "function", "function": {"name": choice}}
        body |= {"tools": TOOLS, "tool_choice": choice if choice in ("auto", "required") else named}
    if "schema" in answer:
        schema = {"name": "answer", "schema": answer["schema"]}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return client.chat.completions.create(**body).choices[0].message


def is_right(answer: dict[str, Any], message: Any) -> bool:
    if "call" in answer:
        calls = message.tool_calls or []
        return [json.loads(call.function.arguments) for call in calls] == [answer["call"]]
    if "json" in answer:
        return bool(json.loads(message.content) == answer["json"])
    return re.search(answer["expect"], message.content or "", re.IGNORECASE | re.DOTALL) is not None


def test_answers_are_at_least_forty() -> None:
    assert len(ANSWERS) >= 40


@pytest.mark.parametrize("answer", [a for a in ANSWERS if "prompt" not in a], ids=name_of)
def test_chat_is_right_at_temperature_0(client: openai.OpenAI, answer: dict[str, Any]) -> None:
    message = ask(client, answer, temperature=0)
    assert is_right(answer, message), message


@pytest.mark.parametrize("answer", [a for a in ANSWERS if "prompt" in a], ids=name_of)
def test_completion_is_right(client: openai.OpenAI, answer: dict[str, Any]) -> None:
    text = client.completions.create(model=MODEL, prompt=answer["prompt"], temperature=0, max_tokens=40).choices[0].text
    assert re.search(answer["expect"], text, re.IGNORECASE | re.DOTALL)


def test_chat_is_nearly_always_right_at_temperature_0_7_at_every_effort(client: openai.OpenAI) -> None:
    """Ten questions at three efforts, the seed fixed, so that the test says the same every time: 29 of 30 are right."""
    questions = [answer for answer in ANSWERS if answer["kind"] == "chat"][:10]
    wrong = [
        (effort, name_of(answer))
        for effort in ("low", "medium", "high")
        for answer in questions
        if not is_right(answer, ask(client, answer, temperature=0.7, seed=7, reasoning_effort=effort))
    ]
    assert len(wrong) <= 1, wrong
