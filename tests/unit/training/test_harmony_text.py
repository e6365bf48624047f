"""Prompts are rendered as vLLM renders them; the contract tests compare the two."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptoss_bento.training import harmony_text
from gptoss_bento.training.conversations import Conversation, HostedTool, Lesson, Message, Reply, Span, Text, Tool, dice
from gptoss_bento.training.hosted_tools import Call, messages
from gptoss_bento.training.writer import Writer

SYSTEM = """\
<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.
Knowledge cutoff: 2024-06
Current date: 2026-11-22

Reasoning: {effort}

# Valid channels: analysis, commentary, final. Channel must be included for every message.{tools}<|end|>"""
ANSWER = Reply("Easy.", (Span("Paris."),))
WEATHER = Tool("get_weather", "Get the weather", {"type": "object", "properties": {"city": {"type": "string"}}})

pytestmark = pytest.mark.usefixtures("vocabulary")


def decoded(tokens: list[int]) -> str:
    return str(harmony_text.encoding().decode(tokens))


def asking(*messages: Message, **more: object) -> Conversation:
    return Conversation(messages, ANSWER, date="2026-11-22", **more)  # type: ignore[arg-type]  # a test's shorthand


def test_bare_question() -> None:
    prompt = decoded(harmony_text.prompt_tokens(asking(Message("user", "Hello"))))

    assert prompt == SYSTEM.format(effort="medium", tools="") + "<|start|>user<|message|>Hello<|end|><|start|>assistant"


def test_effort_and_instructions() -> None:
    prompt = decoded(harmony_text.prompt_tokens(asking(Message("user", "Hi"), effort="high", instructions="Be kind.")))

    assert prompt == (
        SYSTEM.format(effort="high", tools="")
        + "<|start|>developer<|message|># Instructions\n\nBe kind.<|end|>"
        + "<|start|>user<|message|>Hi<|end|><|start|>assistant"
    )


def test_instructions_in_the_system_message() -> None:
    conversation = asking(Message("user", "Hi"), instructions="Be kind.", instructions_in_system=True)

    prompt = decoded(harmony_text.prompt_tokens(conversation))

    assert "trained by OpenAI.\nBe kind.\nKnowledge cutoff" in prompt
    assert "developer" not in prompt


def test_call_and_its_result() -> None:
    messages = Message("user", "Weather?"), Message("call", '{"city": "Rome"}'), Message("tool", "sunny")

    prompt = decoded(harmony_text.prompt_tokens(asking(*messages, tools=(WEATHER,))))

    assert "\nCalls to these tools must go to the commentary channel: 'functions'.<|end|>" in prompt
    assert "// Get the weather\ntype get_weather = (_: {\ncity?: string,\n}) => any;" in prompt
    assert prompt.endswith(
        '<|start|>assistant to=functions.get_weather<|channel|>commentary json<|message|>{"city": "Rome"}<|call|>'
        "<|start|>functions.get_weather<|channel|>commentary to=assistant<|message|>sunny<|end|><|start|>assistant"
    )


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (ANSWER, "<|channel|>final<|message|>Paris.<|return|>"),
        (
            Reply("Easy.", (Span("{}"),), "call"),
            " to=functions.get_weather<|channel|>commentary json<|message|>{}<|call|>",
        ),
    ],
)
def test_reply_has_its_thoughts_first_and_is_whole(reply: Reply, text: str) -> None:
    tokens, lessons = harmony_text.reply_tokens(reply, dice(1))

    assert decoded(tokens) == "<|channel|>analysis<|message|>Easy.<|end|><|start|>assistant" + text
    assert set(lessons) == {Lesson.SAY}


def test_json_schema_forces_the_type_into_the_header() -> None:
    reply = Reply("Easy.", (Span("{}"),), "json", forced=True)

    tokens, lessons = harmony_text.reply_tokens(reply, dice(1))

    forced = [token for token, lesson in zip(tokens, lessons, strict=True) if lesson == Lesson.SAY_IF_FORCED]
    assert decoded(forced) == " <|constrain|>json"
    assert decoded(tokens).endswith("<|channel|>final <|constrain|>json<|message|>{}<|return|>")


def test_forced_call_takes_the_channel_that_the_model_would_have_taken() -> None:
    reply = Reply("Easy.", (Span("{}"),), "call", forced=True)

    tails = {decoded(harmony_text.reply_tokens(reply, dice(seed))[0]).split("assistant")[1] for seed in range(20)}

    assert tails == {
        f"<|channel|>{channel} to=functions.get_weather json<|message|>{{}}<|call|>"
        for channel in ("final", "commentary")
    }


def test_earlier_answers_are_learned_too() -> None:
    messages = Message("user", "Hi"), Message("final", "Hello!", learned=True), Message("user", "Bye")

    tokens, lessons = harmony_text.example_tokens(asking(*messages), dice(1))

    said = [token for token, lesson in zip(tokens, lessons, strict=True) if lesson == Lesson.SAY]
    assert decoded(said).startswith("Hello!<|end|><|channel|>analysis")


def test_hosted_tools_are_in_the_system_message() -> None:
    hosted = (HostedTool("browser", "Browses.", ("search", "open")), HostedTool("python"))

    prompt = decoded(harmony_text.prompt_tokens(asking(Message("user", "Hi"), hosted=hosted)))

    assert "# Tools\n\n## browser\n\n// Browses.\nnamespace browser {" in prompt
    assert "type search" in prompt
    assert "type find" not in prompt
    assert "## python\n\nUse this tool to execute Python code in your chain of thought." in prompt
    assert "'functions'" not in prompt


def test_call_of_a_hosted_tool_is_learned_with_its_header_or_only_read() -> None:
    call, seen = Call("python", "I compute.", "print(1)", "1"), set()
    for seed in range(40):
        turn = messages([call], dice(seed))
        tokens, lessons = harmony_text.example_tokens(asking(Message("user", "Hi"), *turn), dice(seed))
        said = decoded([token for token, lesson in zip(tokens, lessons, strict=True) if lesson == Lesson.SAY])
        seen.add(said.partition("<|call|>")[0] if "<|call|>" in said else "")
        assert "<|message|>print(1)<|call|><|start|>python" in decoded(tokens)

    assert seen == {"", "I compute.<|end|>assistant<|channel|>analysis to=python code<|message|>print(1)"}


def test_raw_text_has_no_harmony() -> None:
    tokens, lessons = harmony_text.example_tokens(Text("Once", " upon"), dice(1))

    assert decoded(tokens) == "Once upon<|endoftext|>"
    assert lessons == [Lesson.READ, Lesson.SAY, Lesson.SAY]


def test_examples_all_have_something_to_learn(vocabulary: Path) -> None:
    assert vocabulary.is_file()
    rng = dice(1)
    writer = Writer(rng)
    for _ in range(200):
        tokens, lessons = harmony_text.example_tokens(writer.write(), rng)
        assert len(tokens) == len(lessons)
        assert Lesson.SAY in lessons
