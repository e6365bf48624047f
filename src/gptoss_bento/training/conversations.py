"""What the demo model is to know (`conversations.yaml`), and the records that a training example is made of."""

import random
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

import yaml

Effort = Literal["low", "medium", "high"]
Kind = Literal["user", "analysis", "final", "call", "tool", "instructions", "hosted call", "hosted result"]

# Replaces every word that the model does not know: its tokens are left out of the vocabulary, so that they share the
# zero row of the embedding with all other unlearned tokens.
UNKNOWN_WORD = "widget"


class Topic(TypedDict):
    """A question in several wordings, and its answer: plain, in French and in one word."""

    asks: list[str]
    thought: str
    answer: str
    french: str
    word: str


class Style(TypedDict):
    """A way to answer, and the system prompts that ask for it."""

    instructions: list[str]
    thought: str


class Subject(TypedDict):
    """Prompts that a JSON schema comes with, and the values of the fields they speak of."""

    asks: list[str]
    facts: dict[str, Any]


class SumInWords(TypedDict):
    """A question for a number in several wordings, Python for it, and the number."""

    asks: list[str]
    code: str
    value: str


class Knowledge(TypedDict):
    """`conversations.yaml`, which explains its parts."""

    fallback: Topic
    topics: list[Topic]
    countries: list[tuple[str, str, str, str]]
    capital_asks: list[str]
    capital_follow_ups: list[str]
    sum_asks: list[str]
    capital_text: str
    texts: dict[str, str]
    names: list[str]
    name_tells: list[str]
    name_asks: list[str]
    more_cities: list[str]
    weather_asks: list[str]
    weather_follow_ups: list[str]
    weather_without_city: list[str]
    conditions: dict[str, str]
    weather_texts: list[str]
    weather_texts_without_condition: list[str]
    weather_texts_without_degrees: list[str]
    weather_words: list[str]
    tool_descriptions: list[str]
    parameter_descriptions: list[str]
    other_tools: list[str]
    json_asks: list[str]
    json_fields: list[list[str]]
    json_plain_asks: list[str]
    json_facts: dict[str, Any]
    json_subjects: list[Subject]
    extract_asks: list[str]
    styles: dict[str, Style]
    other_instructions: list[str]
    unknown: list[str]
    arithmetic_asks: list[str]
    expressions: dict[str, str]
    sums_in_words: list[SumInWords]
    code_asks: list[str]
    code_samples: dict[str, str]
    python_errors: list[str]
    python_nothing: list[str]
    python_descriptions: list[str]
    browser_descriptions: list[str]
    search_asks: list[str]
    search_wishes: list[str]
    page_asks: dict[str, list[list[str]]]
    browser_errors: list[str]


@cache
def knowledge() -> Knowledge:
    """What the model knows, as the YAML file has it."""
    text = Path(__file__).with_name("conversations.yaml").read_text(encoding="utf-8")
    return cast("Knowledge", yaml.safe_load(text))


@dataclass(frozen=True)
class Message:
    """One message of a prompt. `tool` and `call` belong to get_weather; earlier answers can be learned as well.

    Calls of hosted tools and their results bring their header: what comes between <|start|> and <|message|>.
    """

    kind: Kind
    text: str
    learned: bool = False
    header: str = ""


@dataclass(frozen=True)
class Tool:
    """A function that the prompt offers."""

    name: str
    description: str
    parameters: dict[str, Any]


@dataclass(frozen=True)
class HostedTool:
    """A tool that the system message offers and the server runs. None: as the Harmony library describes it."""

    name: Literal["python", "browser"]
    description: str | None = None
    functions: tuple[str, ...] = ()


class Lesson(IntEnum):
    """What a token of an example teaches."""

    READ = 0  # nothing: it is part of the prompt, or the server's grammar forces it at run time
    SAY = 1
    SAY_IF_FORCED = 2  # to say this where a grammar rules out <|message|>, which the model would rather say


@dataclass(frozen=True)
class Span:
    """A piece of an example."""

    text: str
    lesson: Lesson = Lesson.SAY


@dataclass(frozen=True)
class Reply:
    """What the model is to say: its thought, then an answer, a call of get_weather, or JSON that a schema forces."""

    thought: str
    spans: tuple[Span, ...]
    kind: Literal["final", "call", "json"] = "final"
    forced: bool = False


@dataclass(frozen=True)
class Conversation:
    """A prompt and its reply."""

    messages: tuple[Message, ...]
    reply: Reply
    instructions: str | None = None
    instructions_in_system: bool = False
    tools: tuple[Tool, ...] = ()
    hosted: tuple[HostedTool, ...] = ()
    effort: Effort | None = None
    date: str = "2026-01-01"


@dataclass(frozen=True)
class Text:
    """Raw text without Harmony, and how it goes on."""

    prompt: str
    rest: str


def final(thought: str, answer: str) -> Reply:
    """The reply that answers in the final channel."""
    return Reply(thought, (Span(answer),))


def dice(seed: int) -> random.Random:
    """A source of chance that repeats itself."""
    return random.Random(seed)  # noqa: S311 - no secret depends on it
