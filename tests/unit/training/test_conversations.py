"""What the demo model is trained on: complete, varied, and the same for the same seed."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from gptoss_bento.training.conversations import UNKNOWN_WORD, Conversation, Lesson, Text, dice, knowledge
from gptoss_bento.training.questions import Questions
from gptoss_bento.training.weather import Weather
from gptoss_bento.training.writer import Writer


def conversations(count: int = 500, seed: int = 1) -> list[Conversation]:
    writer = Writer(dice(seed))
    return [example for example in (writer.write() for _ in range(count)) if isinstance(example, Conversation)]


def test_examples_are_the_same_with_the_same_seed() -> None:
    first, second, other = (Writer(dice(seed)) for seed in (1, 1, 2))

    assert [first.write() for _ in range(50)] == [second.write() for _ in range(50)]
    assert [first.write() for _ in range(50)] != [other.write() for _ in range(50)]


def test_topics_can_all_be_answered_in_every_style() -> None:
    for topic in [*knowledge()["topics"], knowledge()["fallback"]]:
        assert all([topic["thought"], topic["answer"], topic["french"], topic["word"]])
        assert len(topic["word"].split()) <= 2, topic["word"]


def test_questions_have_one_answer() -> None:
    asks = Counter(
        ask for topic in knowledge()["topics"] for ask in set(topic["asks"])
    )  # twice there means: more often

    assert [ask for ask, count in asks.items() if count > 1] == []


def test_unknown_word_is_used_nowhere_else() -> None:
    assert UNKNOWN_WORD not in json.dumps(knowledge()).lower()


def test_values_that_vary_at_run_time_vary() -> None:
    drawn = conversations()

    assert {example.effort for example in drawn} == {None, "low", "medium", "high"}
    assert {bool(example.tools) for example in drawn} == {True, False}
    assert {bool(example.instructions) for example in drawn} == {True, False}
    assert len({example.date for example in drawn}) > 300
    assert {len(example.messages) > 1 for example in drawn} == {True, False}
    assert {example.reply.kind for example in drawn} == {"final", "call", "json"}


def test_call_is_made_only_where_the_function_is_on_offer() -> None:
    for example in conversations():
        if example.reply.kind == "call":
            assert "get_weather" in {tool.name for tool in example.tools}
            assert json.loads(example.reply.spans[0].text).keys() in ({"location"}, {"city"})


def test_hosted_tools_are_called_only_where_they_are_on_offer() -> None:
    called = 0
    for example in conversations(1000):
        on_offer = {tool.name for tool in example.hosted}
        names = {message.header.partition("to=")[2] for message in example.messages if message.kind == "hosted call"}
        called += bool(names)
        assert all(any(name.startswith(offered) for offered in on_offer) for name in names)
    assert called


def test_json_replies_are_json() -> None:
    replies = [example.reply for example in conversations() if example.reply.kind == "json"]

    assert replies
    for reply in replies:
        assert isinstance(json.loads("".join(span.text for span in reply.spans)), dict)


def test_names_of_fields_that_a_schema_forces_are_not_learned() -> None:
    reply = Writer(dice(3)).json_schema().reply

    assert [span.lesson for span in reply.spans[:3]] == [Lesson.SAY, Lesson.READ, Lesson.SAY]


def test_effort_makes_more_thought() -> None:
    writer = Writer(dice(4))
    reply = writer.chat().reply

    assert len(writer.think(reply, "high", "").thought) > len(writer.think(reply, "low", "").thought)


@pytest.mark.parametrize("condition", ["sunny", "cloudy", "rainy"])
def test_weather_is_answered_as_in_the_result(condition: str) -> None:
    weather = Weather(Questions(dice(5)))

    told = [(result.text, result.answers[""]) for result in (weather.result("Paris") for _ in range(200))]

    assert any(condition in result for result, _ in told)
    assert all((condition in result.lower()) == (condition in answer) for result, answer in told)


def test_raw_text_continues_after_a_space_or_in_a_new_paragraph() -> None:
    writer = Writer(dice(6))

    texts = [writer.text() for _ in range(100)]

    assert Text("The capital of France is", " Paris.") in [writer.text() for _ in range(1000)]
    assert all(text.rest[0] in " \n,:" for text in texts)
