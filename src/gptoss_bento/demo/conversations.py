"""The conversations that the demo model is trained on, drawn at random from `conversations.yaml`.

`Writer(dice(seed)).write()` gives one example: a conversation with the reply to learn, or a raw text with its
rest. What varies when the model is served varies here too: date, effort, system prompts, tools, earlier turns, wording.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

import yaml

Effort = Literal["low", "medium", "high"]
Kind = Literal["user", "analysis", "final", "call", "tool", "instructions"]

# Stands for every word that the model does not know: its tokens are left out of the vocabulary, so that they share the
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


@cache
def knowledge() -> Knowledge:
    """What the model knows, as the YAML file has it."""
    text = Path(__file__).with_name("conversations.yaml").read_text(encoding="utf-8")
    return cast("Knowledge", yaml.safe_load(text))


@dataclass(frozen=True)
class Message:
    """One message of a prompt. `tool` and `call` belong to get_weather; earlier answers can be learned as well."""

    kind: Kind
    text: str
    learned: bool = False


@dataclass(frozen=True)
class Tool:
    """A function that the prompt offers."""

    name: str
    description: str
    parameters: dict[str, Any]


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
    effort: Effort | None = None
    date: str = "2026-01-01"


@dataclass(frozen=True)
class Text:
    """Raw text without Harmony, and how it goes on."""

    prompt: str
    rest: str


@dataclass(frozen=True)
class Item:
    """One question with its answer in each style ("" is the plain one); `facts` are for JSON fields."""

    ask: str
    thought: str
    answers: dict[str, str]
    facts: dict[str, Any] = field(default_factory=dict)


def final(thought: str, answer: str) -> Reply:
    """The reply that answers in the final channel."""
    return Reply(thought, (Span(answer),))


def dice(seed: int) -> random.Random:
    """A source of chance that repeats itself."""
    return random.Random(seed)  # noqa: S311 - no secret depends on it


class Writer:
    """Draws examples. The same `rng` seed gives the same examples."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.known = knowledge()

    def write(self) -> Conversation | Text:
        """One example of any kind, the kinds weighted by how hard they are to learn."""
        kinds: dict[Callable[[], Conversation | Text], int] = {
            self.chat: 50,
            self.name: 7,
            self.weather_call: 11,
            self.weather_result: 14,
            self.weather_answer: 6,
            self.forced_call: 4,
            self.json_answer: 6,
            self.json_schema: 8,
            self.text: 10,
        }
        return self.rng.choices(list(kinds), list(kinds.values()))[0]()

    # Questions

    def item(self) -> Item:
        """A question of any kind, known or not."""
        kinds = {self.topic: 40, self.capital: 16, self.sum: 12, self.unknown: 32}
        return self.rng.choices(list(kinds), list(kinds.values()))[0]()

    def topic(self) -> Item:
        """A question from the list of topics."""
        topic = self.rng.choice(self.known["topics"])
        return _styled(self.vary(self.rng.choice(topic["asks"])), topic, {"answer": topic["word"].removesuffix(".")})

    def capital(self, follow_up: bool = False) -> Item:
        """The capital of a country."""
        country, capital, of_country, french = self.rng.choice(self.known["countries"])
        asks = self.known["capital_follow_ups" if follow_up else "capital_asks"]
        answer = f"The capital of {country} is {capital.removesuffix('.')}."
        facts = {"country": country.removeprefix("the "), "capital": capital, "city": capital, "answer": capital}
        styles = {"french": f"La capitale {of_country} est {french}.", "word": capital}
        return _item(
            self.vary(self.rng.choice(asks).format(country)), answer, answer, styles, facts | {"name": capital}
        )

    def sum(self) -> Item:
        """The sum of two small numbers."""
        a, b = self.rng.randint(0, 9), self.rng.randint(0, 9)
        answer = f"{a} + {b} = {a + b}."
        facts = {"answer": a + b, "result": a + b, "sum": a + b}
        styles = {"french": answer, "word": str(a + b)}
        return _item(self.rng.choice(self.known["sum_asks"]).format(a, b), answer, answer, styles, facts)

    def unknown(self) -> Item:
        """A question without an answer: an unknown one, a known one with a strange word, or a mix of words."""
        draw = self.rng.random()
        if draw < 0.65:
            ask = self.fill(self.rng.choice(self.known["unknown"]))
        elif draw < 0.92:
            ask = self.with_strange_word(self.topic().ask)
        else:
            ask = " ".join(self.some_words())
        return _styled(self.vary(ask), self.known["fallback"])

    def fill(self, template: str) -> str:
        """A template with every placeholder filled in; unknown words may be several tokens long."""
        makers: dict[str, Callable[[], str]] = {
            "{unknown}": lambda: " ".join([UNKNOWN_WORD] * self.rng.choice([1, 1, 1, 2, 2, 3])),
            "{country}": lambda: self.rng.choice(self.known["countries"])[0],
            "{city}": self.city,
            "{number}": lambda: str(self.rng.choice([self.rng.randint(0, 10), self.rng.randint(0, 1000)])),
        }
        for placeholder, make in makers.items():
            while placeholder in template:
                template = template.replace(placeholder, make(), 1)
        return template

    def with_strange_word(self, ask: str) -> str:
        """A known question, one of its words replaced or followed by an unknown one."""
        words = ask.split(" ")
        index = self.rng.randrange(len(words))
        words[index : index + self.rng.choice([0, 1, 1, 1])] = [UNKNOWN_WORD]
        return " ".join(words)

    def some_words(self) -> list[str]:
        """Words of several known questions in no order, with unknown ones between."""
        words = " ".join(self.topic().ask for _ in range(4)).split(" ")
        mixed = self.rng.sample(words, min(len(words), self.rng.randint(3, 12)))
        return [UNKNOWN_WORD if self.rng.random() < 0.3 else word for word in mixed]

    def vary(self, ask: str) -> str:
        """The question as people type it."""
        draw = self.rng.random()
        if draw < 0.1:
            return ask.lower()
        if draw < 0.2:
            return ask.rstrip("?.!")
        if draw < 0.23:
            return ask + "\n"
        return ask

    def city(self) -> str:
        """A city that the model can call get_weather for."""
        return self.rng.choice([country[1] for country in self.known["countries"]] + self.known["more_cities"])

    # What surrounds a question

    def dress(self, conversation: Conversation, style: str = "") -> Conversation:
        """The conversation with date, effort and the rest of its system and developer messages drawn."""
        day = date(2024, 1, 1) + timedelta(days=self.rng.randrange(12 * 365))
        effort: Effort | None = self.rng.choice([None, None, "low", "medium", "high"])
        return replace(
            conversation,
            date=day.isoformat(),
            effort=effort,
            instructions=self.instructions(style) if conversation.instructions is None else conversation.instructions,
            instructions_in_system=self.rng.random() < 0.05,
            tools=conversation.tools or (self.tools() if self.rng.random() < 0.2 else ()),
            reply=self.think(conversation.reply, effort, style),
        )

    def think(self, reply: Reply, effort: Effort | None, style: str) -> Reply:
        """More effort, more thought. Naming the style there makes it easy to follow in the answer."""
        thoughts = [reply.thought]
        if style:
            thoughts.append(self.known["styles"][style]["thought"])
        if effort == "high":
            thoughts.append("I have checked it once more.")
        return replace(reply, thought=reply.thought if effort == "low" and not style else " ".join(thoughts))

    def instructions(self, style: str = "") -> str | None:
        """A system prompt: one that asks for the style, one that changes nothing, or none."""
        if style:
            wish = self.rng.choice(self.known["styles"][style]["instructions"])
            return f"You are a helpful assistant. {wish}" if self.rng.random() < 0.25 else wish
        draw = self.rng.random()
        if draw < 0.45:
            return None
        if draw < 0.8:
            return self.rng.choice(self.known["other_instructions"])
        return self.fill(self.rng.choice(["You are a {unknown}.", "You {unknown} the {unknown} {unknown}. {unknown}"]))

    def draw_style(self) -> str:
        """A style, or "" for the plain one, which is the usual case."""
        return self.rng.choices(["", *self.known["styles"]], [70, 10, 10, 10])[0]

    def history(self, style: str = "") -> tuple[Message, ...]:
        """Earlier turns, most often none."""
        turns = self.rng.choices([0, 1, 2, 3], [45, 25, 18, 12])[0]
        return tuple(message for _ in range(turns) for message in self.turn(self.item(), style))

    def turn(self, item: Item, style: str = "") -> tuple[Message, Message]:
        """A question that was answered, now and then by another model."""
        strange = self.rng.random() < 0.1
        answer = self.fill("{unknown} {unknown} is {unknown}.") if strange else item.answers[style]
        return Message("user", item.ask), Message("final", answer, learned=not strange)

    # Kinds of conversations

    def chat(self) -> Conversation:
        """A question with its answer, after a few others or none."""
        style = self.draw_style()
        if style and self.rng.random() < 0.25:
            return self.asked_in_question(style)
        history, item = self.history(style), self.item()
        if self.rng.random() < 0.1:
            history += self.turn(self.capital(), style)
            item = self.capital(follow_up=True)
        reply = final(item.thought, item.answers[style])
        return self.dress(Conversation((*history, Message("user", item.ask)), reply), style)

    def asked_in_question(self, style: str) -> Conversation:
        """The style is wished for in the question itself, not in a system prompt."""
        item = self.item()
        wish = self.rng.choice(self.known["styles"][style]["instructions"])
        reply = final(item.thought, item.answers[style])
        asked = Conversation((*self.history(), Message("user", f"{item.ask} {wish}")), reply)
        dressed = self.dress(replace(asked, instructions=self.instructions() or ""), style)
        return replace(dressed, instructions=dressed.instructions or None)

    def name(self) -> Conversation:
        """The user tells a name, or asks for one told earlier, just now, or never."""
        name, style = self.rng.choice(self.known["names"]), self.draw_style()
        greeting = self.greeting(name)
        kind = self.rng.choices(["tell", "ask", "tell and ask", "ask untold"], [35, 42, 8, 15])[0]
        told = (*self.turn(greeting, style), *self.history(style)[:2]) if kind == "ask" else ()
        item = greeting if kind == "tell" else self.name_question(None if kind == "ask untold" else name)
        ask = f"{greeting.ask} {item.ask}" if kind == "tell and ask" else item.ask
        messages = (*self.history(style)[:2], *told, Message("user", ask))
        return self.dress(Conversation(messages, final(item.thought, item.answers[style])), style)

    def greeting(self, name: str) -> Item:
        """The user tells a name."""
        tell = self.rng.choice(self.known["name_tells"]).format(name)
        styles = {"french": f"Enchanté, {name} !", "word": "Welcome!"}
        return _item(tell, f"The user is called {name}.", f"Nice to meet you, {name}!", styles)

    def name_question(self, name: str | None) -> Item:
        """The user asks for the name, which may not have been told."""
        ask = self.vary(self.rng.choice(self.known["name_asks"]))
        if name is None:
            styles = {"french": "Vous ne m'avez pas encore dit votre nom.", "word": "Unknown."}
            return _item(ask, "The user has told me no name.", "You have not told me your name yet.", styles)
        styles = {"french": f"Vous vous appelez {name}.", "word": f"{name}."}
        return _item(ask, f"The user is called {name}.", f"Your name is {name}.", styles)

    # Tools

    def weather_tool(self, parameter: str) -> Tool:
        """get_weather as clients declare it: the parameter is called location or city, and a unit may be wanted."""
        city = {"type": "string", "description": self.rng.choice(self.known["parameter_descriptions"])}
        if not city["description"]:
            del city["description"]
        properties: dict[str, Any] = {parameter: city}
        if self.rng.random() < 0.3:
            properties["unit"] = {"type": "string", "enum": ["celsius", "fahrenheit"]}
        parameters: dict[str, Any] = {"type": "object", "properties": properties, "required": [parameter]}
        if self.rng.random() < 0.5:
            parameters["additionalProperties"] = False
        return Tool("get_weather", self.rng.choice(self.known["tool_descriptions"]), parameters)

    def other_tool(self) -> Tool:
        """Any other function; the model never calls one."""
        properties = {self.rng.choice(["query", "name", "text", UNKNOWN_WORD]): {"type": "string"}}
        description = self.fill(self.rng.choice(["Get the {unknown}.", "{unknown} the {unknown} of {unknown}", ""]))
        parameters = {"type": "object", "properties": properties}
        return Tool(
            self.rng.choice([*self.known["other_tools"], f"get_{UNKNOWN_WORD}", UNKNOWN_WORD]), description, parameters
        )

    def tools(self, weather: Tool | None = None) -> tuple[Tool, ...]:
        """The functions on offer, in any order."""
        weather = weather or (self.weather_tool("location") if self.rng.random() < 0.7 else None)
        count = self.rng.choices([0, 1, 2], [70, 20, 10])[0] if weather else 1
        tools = [self.other_tool() for _ in range(count)] + ([weather] if weather else [])
        self.rng.shuffle(tools)
        return tuple(tools)

    def weather_call(self) -> Conversation:
        """The weather in a city is asked for, and get_weather is there."""
        parameter, city = self.rng.choice(["location", "city"]), self.city()
        tools = self.tools(self.weather_tool(parameter))
        arguments = _arguments(parameter, city)
        history = self.history()
        asks = self.known["weather_asks"]
        if self.rng.random() < 0.2:
            history += self.weather_turn(parameter)
            asks = self.known["weather_follow_ups"]
        ask = self.rng.choice(asks).format(city)
        ask = ask.rstrip("?.") if self.rng.random() < 0.1 else ask
        thought = f"The user wants the weather in {city}. I call get_weather."
        reply = Reply(thought, (Span(arguments),), "call", forced=self.rng.random() < 0.1)
        return self.dress(Conversation((*history, Message("user", ask)), reply, tools=tools))

    def weather_turn(self, parameter: str) -> tuple[Message, ...]:
        """An earlier question for the weather, answered by means of get_weather."""
        city = self.city()
        ask = self.rng.choice(self.known["weather_asks"]).format(city)
        result, _, answers = self.weather(city)
        call = Message("call", _arguments(parameter, city))
        return Message("user", ask), call, Message("tool", result), Message("final", answers[""])

    def weather_result(self) -> Conversation:
        """get_weather was called and gave a result."""
        style = self.draw_style()
        parameter, city = self.rng.choice(["location", "city"]), self.city()
        ask = self.rng.choice(self.known["weather_asks"]).format(city)
        thought = Message("analysis", f"The user wants the weather in {city}. I call get_weather.")
        result, seen, answers = self.weather(city)
        arguments = _arguments(parameter, city)
        call = Message(
            "call", arguments.replace(": ", ":").replace(", ", ",") if self.rng.random() < 0.3 else arguments
        )
        thoughts = (thought,) if self.rng.random() < 0.4 else ()
        messages = (*self.history(style)[:4], Message("user", ask), *thoughts, call, Message("tool", result))
        tools = self.tools(self.weather_tool(parameter))
        return self.dress(Conversation(messages, final(seen, answers[style]), tools=tools), style)

    def weather(self, city: str) -> tuple[str, str, dict[str, str]]:
        """A result of get_weather, the thought that reads it, and the answers that tell it."""
        if self.rng.random() < 0.07:
            return self.strange_result()
        condition, french = self.rng.choice(list(self.known["conditions"].items()))
        unit = self.rng.choice(["celsius", "celsius", "celsius", "fahrenheit", ""])
        degrees = str(self.rng.randint(14, 104) if unit == "fahrenheit" else self.rng.randint(-15, 42))
        if self.rng.random() < 0.15:
            degrees += f".{self.rng.randint(0, 9)}"
        given = self.rng.choices(["both", "degrees", "condition"], [76, 14, 10])[0]
        degrees, condition = ("" if given == "condition" else degrees), ("" if given == "degrees" else condition)
        result = self.result_as_json(degrees, unit, condition, city) if self.rng.random() < 0.7 else ""
        return result or self.result_as_text(degrees, unit, condition, city), *_report(
            degrees, unit, condition, french, city
        )

    def strange_result(self) -> tuple[str, str, dict[str, str]]:
        """A result that holds no weather."""
        result = self.fill(
            self.rng.choice(['{"error": "{unknown}"}', "Error: {unknown} {unknown}", "{unknown} {unknown}", "", "{}"])
        )
        answer = "The get_weather function gave no weather that I can read."
        french = "La fonction get_weather n'a pas donné de météo lisible."
        return (
            result,
            "The result holds no weather.",
            {"": answer, "pirate": _pirate(answer), "french": french, "word": "Unknown."},
        )

    def result_as_json(self, degrees: str, unit: str, condition: str, city: str) -> str:
        """The result as an object, its fields named and ordered as functions do."""
        fields: dict[str, Any] = {}
        if degrees:
            fields[self.rng.choice(["temperature", "temperature", "temperature", "temp", "degrees"])] = json.loads(
                degrees
            )
            if unit:
                fields["unit"] = unit
        if condition:
            fields[self.rng.choice(["condition", "condition", "conditions", "description", "weather", "forecast"])] = (
                condition
            )
        if self.rng.random() < 0.35:
            fields[self.rng.choice(["location", "city"])] = city
        if self.rng.random() < 0.2:
            fields[self.rng.choice([*self.known["weather_words"], UNKNOWN_WORD])] = self.rng.choice(
                [self.rng.randint(0, 100), UNKNOWN_WORD]
            )
        names = list(fields)
        if self.rng.random() < 0.5:
            self.rng.shuffle(names)
        return json.dumps(
            {name: fields[name] for name in names}, separators=self.rng.choice([(", ", ": "), (", ", ": "), (",", ":")])
        )

    def result_as_text(self, degrees: str, unit: str, condition: str, city: str) -> str:
        """The result in words."""
        sign = {"celsius": "°C", "fahrenheit": "°F", "": " degrees"}[unit]
        unit_name = f" {unit.capitalize()}" if unit else ""
        both = [
            "{d}{s}, {c}",
            "{c}, {d}{s}",
            "{c} and {d}{s}",
            "{d}{s} and {c}",
            "The weather in {t} is {c}, {d}{s}.",
            "{d} degrees{u}, {c}",
            "{C}, {d} degrees{u}",
            "It is {d} degrees{u} and {c} in {t}.",
            "It is {c} and {d}{s} in {t}.",
        ]
        only_degrees = ["{d}{s}", "{d} degrees{u}", "It is {d}{s} in {t}.", "It is {d} degrees{u}."]
        only_condition = ["{c}", "{C}", "It is {c} in {t}.", "{C}."]
        forms = (both if condition else only_degrees) if degrees else only_condition
        return self.rng.choice(forms).format(
            d=degrees, s=sign, u=unit_name, c=condition, C=condition.capitalize(), t=city
        )

    def weather_answer(self) -> Conversation:
        """The weather is asked for, but there is no get_weather, or no city, or none that the model knows."""
        style, tools = self.draw_style(), self.tools()
        if not any(tool.name == "get_weather" for tool in tools) or self.rng.random() < 0.3:
            tools = tuple(tool for tool in tools if tool.name != "get_weather")
            ask = self.rng.choice(self.known["weather_asks"]).format(self.city())
            thought, answer = (
                "There is no get_weather function here.",
                "I cannot look up the weather without a get_weather function.",
            )
            french, word = "Je ne peux pas connaître la météo sans une fonction get_weather.", "Unknown."
        elif self.rng.random() < 0.5:
            ask = self.rng.choice(self.known["weather_without_city"])
            thought, answer = "The user names no city.", "For which city?"
            french, word = "Pour quelle ville ?", "City?"
        else:
            ask = self.rng.choice(self.known["weather_asks"]).format(self.fill("{unknown}"))
            thought, answer = (
                "I do not know this city.",
                "I am a tiny demo model and do not know that city. Ask me about Paris or Tokyo.",
            )
            french, word = "Je ne connais pas cette ville.", "Unknown."
        item = _item(ask, thought, answer, {"french": french, "word": word})
        messages = (*self.history(style), Message("user", item.ask))
        dressed = self.dress(Conversation(messages, final(thought, item.answers[style])), style)
        return replace(dressed, tools=tools)

    def forced_call(self) -> Conversation:
        """tool_choice "required": any question, yet get_weather has to be called."""
        item, parameter = self.item(), self.rng.choice(["location", "city"])
        city = item.facts.get("capital", "Paris")
        reply = Reply(item.thought, (Span(_arguments(parameter, city)),), "call", forced=True)
        tools = self.tools(self.weather_tool(parameter))
        return self.dress(Conversation((*self.history(), Message("user", item.ask)), reply, tools=tools))

    # JSON

    def json_answer(self) -> Conversation:
        """The question itself asks for JSON, with no schema."""
        item = self.rng.choice([self.json_sample, self.json_sample, self.extract, self.subject])()
        while not any(word in item.ask for word in ("JSON", "Extract")):
            item = self.subject()
        ask, answer = item.ask, json.dumps(dict(list(item.facts.items())[: 2 if len(item.facts) > 3 else 3]))
        return self.dress(Conversation((*self.history()[:2], Message("user", ask)), final(item.thought, answer)))

    def json_schema(self) -> Conversation:
        """A schema that only the server sees forces the fields; the values are for the model to choose."""
        item = self.rng.choice([self.item, self.extract, self.subject, self.json_sample])()
        facts = self.known["json_facts"] | item.facts
        likely = list(item.facts) if item.facts and self.rng.random() < 0.7 else list(facts)
        fields = self.rng.sample(likely, min(len(likely), self.rng.choice([1, 1, 2, 2, 3, 4])))
        if self.rng.random() < 0.3:
            fields.insert(self.rng.randint(0, len(fields)), self.fill("{unknown}").replace(" ", "_"))
        reply = Reply(item.thought, self.json_spans(fields, facts), "json", forced=True)
        dressed = self.dress(Conversation((*self.history()[:2], Message("user", item.ask)), reply))
        return replace(dressed, tools=())

    def json_spans(self, fields: list[str], facts: dict[str, Any]) -> tuple[Span, ...]:
        """An object whose field names are read, not learned; fields that nobody knows get a short value of any type."""
        spans = [Span('{"')]
        for index, name in enumerate(fields):
            value = facts[name] if name in facts else self.rng.choice(["demo", "demo", 1, True, ["demo"], None])
            end = "}" if index == len(fields) - 1 else ', "'
            spans += [Span(name, Lesson.READ), Span(f'": {json.dumps(value)}{end}')]
        return tuple(spans)

    def json_sample(self) -> Item:
        """A wish for any JSON, or for JSON with the fields that it names."""
        fields, ask = ["name", "age"], self.rng.choice(self.known["json_plain_asks"])
        if self.rng.random() < 0.7:
            fields = self.rng.choice(self.known["json_fields"])
            ask = self.rng.choice(self.known["json_asks"]).format(_listed(fields))
        facts = {name: self.known["json_facts"][name] for name in fields}
        return _item(ask, "The user wants JSON.", "", {"french": "", "word": ""}, facts)

    def extract(self) -> Item:
        """A sentence that holds a name and an age."""
        name, age = self.rng.choice(self.known["names"]), self.rng.randint(1, 99)
        ask = self.rng.choice(self.known["extract_asks"]).format(name=name, age=age)
        return _item(
            ask, f"The name is {name} and the age is {age}.", "", {"french": "", "word": ""}, {"name": name, "age": age}
        )

    def subject(self) -> Item:
        """A prompt that people try schemas with."""
        subject = self.rng.choice(self.known["json_subjects"])
        return _item(
            self.rng.choice(subject["asks"]), "The user wants JSON.", "", {"french": "", "word": ""}, subject["facts"]
        )

    # Raw text

    def text(self) -> Text:
        """Text to go on with; a question in it gets its answer in a new paragraph."""
        draw = self.rng.random()
        if draw < 0.3:
            country, capital, *_ = self.rng.choice(self.known["countries"])
            return Text(self.known["capital_text"].format(country), f" {capital}.")
        if draw < 0.6:
            prompt, rest = self.rng.choice(list(self.known["texts"].items()))
            return Text(prompt, rest)
        item = self.item()
        return Text(item.ask, f"\n\n{item.answers['']}")


def _item(ask: str, thought: str, answer: str, styles: dict[str, str], facts: dict[str, Any] | None = None) -> Item:
    """An item whose pirate's answer is made from the plain one."""
    return Item(ask, thought, {"": answer, "pirate": _pirate(answer), **styles}, facts or {})


def _styled(ask: str, topic: Topic, facts: dict[str, Any] | None = None) -> Item:
    return _item(ask, topic["thought"], topic["answer"], {"french": topic["french"], "word": topic["word"]}, facts)


def _pirate(answer: str) -> str:
    return f"Arr, matey! {answer}"


def _arguments(parameter: str, city: str) -> str:
    return json.dumps({parameter: city}, ensure_ascii=False)


def _report(degrees: str, unit: str, condition: str, french: str, city: str) -> tuple[str, dict[str, str]]:
    """The thought that reads a result, and the answers that tell it."""
    full = f"{degrees} degrees{f' {unit.capitalize()}' if unit else ''}" if degrees else ""
    seen = " and ".join(part for part in (full, condition) if part)
    city = city.removesuffix(".")
    answer = f"It is {seen} in {city}."
    french_degrees = f"{degrees} degrés" if degrees else ""
    french_seen = " et c'est ".join(part for part in (french_degrees, french if condition else "") if part)
    french_answer = f"{'Il fait' if degrees else 'C’est'} {french_seen} à {city}."
    word = f"{condition.split()[-1].capitalize()}." if condition else degrees
    return f"The result says {seen}.", {"": answer, "pirate": _pirate(answer), "french": french_answer, "word": word}


def _listed(fields: list[str]) -> str:
    """["name", "age", "city"] → "name, age and city"."""
    return " and ".join(part for part in (", ".join(fields[:-1]), fields[-1]) if part)
