"""Writes the conversations that the demo model is trained on.

`Writer(dice(seed)).write()` gives one example: a conversation with the reply to learn, or a raw text with its
rest. What varies when the model is served varies here too: date, effort, system prompts, tools, earlier turns, wording.
"""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

from gptoss_bento.training import hosted_tools
from gptoss_bento.training.arithmetic import Arithmetic
from gptoss_bento.training.conversations import (
    Conversation,
    Effort,
    HostedTool,
    Lesson,
    Message,
    Reply,
    Span,
    Text,
    final,
)
from gptoss_bento.training.hosted_tools import Call, HostedTools
from gptoss_bento.training.pages import Pages
from gptoss_bento.training.questions import Item, Questions, of_topic
from gptoss_bento.training.weather import Weather, arguments


class Writer:
    """Draws examples. The same `rng` seed gives the same examples."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.questions = Questions(rng)
        self.weather = Weather(self.questions)
        self.arithmetic, self.pages = Arithmetic(self.questions), Pages(self.questions)
        self.hosted = HostedTools(self.questions)
        self.known = self.questions.known

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
            self.json_schema: 14,
            self.text: 10,
            self.computed: 12,
            self.browsed: 6,
            self.tool_missing: 4,
        }
        return self.rng.choices(list(kinds), list(kinds.values()))[0]()

    def parameter(self) -> str:
        """What a declaration of get_weather calls its parameter; most say location."""
        return self.rng.choices(["location", "city"], [3, 1])[0]

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
            tools=conversation.tools or (self.weather.tools() if self.rng.random() < 0.15 else ()),
            hosted=conversation.hosted or self.idle_tools(),
            reply=self.think(conversation.reply, effort, style),
        )

    def idle_tools(self) -> tuple[HostedTool, ...]:
        """Hosted tools that the question is not for."""
        draw = self.rng.random()
        return self.hosted.some(python=0.02 < draw < 0.08, browser=draw < 0.03)

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
        return self.questions.fill(
            self.rng.choice(["You are a {unknown}.", "You {unknown} the {unknown} {unknown}. {unknown}"])
        )

    def draw_style(self) -> str:
        """A style, or "" for the plain one, which is the usual case."""
        return self.rng.choices(["", *self.known["styles"]], [64, 10, 10, 16])[0]

    def history(self, style: str = "") -> tuple[Message, ...]:
        """Earlier turns, most often none."""
        turns = self.rng.choices([0, 1, 2, 3], [50, 26, 16, 8])[0]
        return tuple(message for _ in range(turns) for message in self.turn(self.questions.item(), style))

    def turn(self, item: Item, style: str = "") -> tuple[Message, Message]:
        """A question that was answered, now and then by another model."""
        strange = self.rng.random() < 0.1
        answer = self.questions.fill("{unknown} {unknown} is {unknown}.") if strange else item.answers[style]
        return Message("user", item.ask), Message("final", answer, learned=not strange)

    # Kinds of conversations

    def chat(self) -> Conversation:
        """A question with its answer, after a few others or none."""
        style = self.draw_style()
        if style and self.rng.random() < 0.25:
            return self.asked_in_question(style)
        history, item = self.history(style), self.questions.item()
        if self.rng.random() < 0.1:
            history += self.turn(self.questions.capital(), style)
            item = self.questions.capital(follow_up=True)
        reply = final(item.thought, item.answers[style])
        return self.dress(Conversation((*history, Message("user", item.ask)), reply), style)

    def asked_in_question(self, style: str) -> Conversation:
        """The style is wished for in the question itself, not in a system prompt."""
        item = self.questions.item()
        wish = self.rng.choice(self.known["styles"][style]["instructions"])
        reply = final(item.thought, item.answers[style])
        asked = Conversation((*self.history(), Message("user", f"{item.ask} {wish}")), reply)
        dressed = self.dress(replace(asked, instructions=self.instructions() or ""), style)
        return replace(dressed, instructions=dressed.instructions or None)

    def name(self) -> Conversation:
        """The user gives a name, or asks for one given earlier, just now, or never."""
        name, style = self.rng.choice(self.known["names"]), self.draw_style()
        greeting = self.questions.greeting(name)
        kind = self.rng.choices(["tell", "ask", "tell and ask", "ask untold"], [35, 42, 8, 15])[0]
        told = (*self.turn(greeting, style), *self.history(style)[:2]) if kind == "ask" else ()
        item = greeting if kind == "tell" else self.questions.name_question(None if kind == "ask untold" else name)
        ask = f"{greeting.ask} {item.ask}" if kind == "tell and ask" else item.ask
        messages = (*self.history(style)[:2], *told, Message("user", ask))
        return self.dress(Conversation(messages, final(item.thought, item.answers[style])), style)

    def weather_call(self) -> Conversation:
        """The weather in a city is asked for, and get_weather is there."""
        parameter, city = self.parameter(), self.questions.city()
        tools = self.weather.tools(self.weather.declaration(parameter))
        history = self.history()
        asks = self.known["weather_asks"]
        if self.rng.random() < 0.2:
            history += self.weather_turn(parameter)
            asks = self.known["weather_follow_ups"]
        ask = self.rng.choice(asks).format(city)
        ask = ask.rstrip("?.") if self.rng.random() < 0.1 else ask
        thought = f"The user wants the weather in {city}. I call get_weather."
        reply = Reply(thought, (Span(arguments(parameter, city)),), "call", forced=self.rng.random() < 0.1)
        return self.dress(Conversation((*history, Message("user", ask)), reply, tools=tools))

    def weather_turn(self, parameter: str) -> tuple[Message, ...]:
        """An earlier question for the weather, answered by means of get_weather."""
        city = self.questions.city()
        ask = self.rng.choice(self.known["weather_asks"]).format(city)
        result = self.weather.result(city)
        call = Message("call", arguments(parameter, city))
        return Message("user", ask), call, Message("tool", result.text), Message("final", result.answers[""])

    def weather_result(self) -> Conversation:
        """get_weather was called and gave a result."""
        style = self.draw_style()
        parameter, city = self.parameter(), self.questions.city()
        ask = self.rng.choice(self.known["weather_asks"]).format(city)
        thought = Message("analysis", f"The user wants the weather in {city}. I call get_weather.")
        result = self.weather.result(city)
        compact = self.rng.random() < 0.3
        call = Message("call", arguments(parameter, city, compact=compact))
        thoughts = (thought,) if self.rng.random() < 0.4 else ()
        messages = (*self.history(style)[:4], Message("user", ask), *thoughts, call, Message("tool", result.text))
        tools = self.weather.tools(self.weather.declaration(parameter))
        return self.dress(Conversation(messages, final(result.thought, result.answers[style]), tools=tools), style)

    def weather_answer(self) -> Conversation:
        """The weather is asked for, but there is no get_weather, or no city, or none that the model knows."""
        style, tools = self.draw_style(), self.weather.tools()
        if not any(tool.name == "get_weather" for tool in tools) or self.rng.random() < 0.3:
            tools = tuple(tool for tool in tools if tool.name != "get_weather")
            item = self.questions.weather_without_function()
        elif self.rng.random() < 0.5:
            item = self.questions.weather_without_city()
        else:
            item = self.questions.weather_in_unknown_city()
        messages = (*self.history(style), Message("user", item.ask))
        dressed = self.dress(Conversation(messages, final(item.thought, item.answers[style])), style)
        return replace(dressed, tools=tools)

    def forced_call(self) -> Conversation:
        """tool_choice "required": any question, yet get_weather has to be called."""
        item, parameter = self.questions.item(), self.parameter()
        city = item.facts.get("capital", "Paris")
        reply = Reply(item.thought, (Span(arguments(parameter, city)),), "call", forced=True)
        tools = self.weather.tools(self.weather.declaration(parameter))
        return self.dress(Conversation((*self.history(), Message("user", item.ask)), reply, tools=tools))

    def json_answer(self) -> Conversation:
        """The question itself asks for JSON, with no schema."""
        item = self.rng.choice(
            [self.questions.json_sample, self.questions.json_sample, self.questions.extract, self.questions.subject]
        )()
        while not any(word in item.ask for word in ("JSON", "Extract")):
            item = self.questions.subject()
        ask, answer = item.ask, json.dumps(dict(list(item.facts.items())[: 2 if len(item.facts) > 3 else 3]))
        return self.dress(Conversation((*self.history()[:2], Message("user", ask)), final(item.thought, answer)))

    def json_schema(self) -> Conversation:
        """A schema that only the server sees forces the fields; the values are for the model to choose."""
        item = self.questions.for_schema()
        facts = self.known["json_facts"] | item.facts
        likely = list(item.facts) if item.facts and self.rng.random() < 0.7 else list(facts)
        fields = self.rng.sample(likely, min(len(likely), self.rng.choice([1, 1, 2, 2, 3, 4])))
        if self.rng.random() < 0.3:
            fields.insert(self.rng.randint(0, len(fields)), self.questions.fill("{unknown}").replace(" ", "_"))
        reply = Reply(item.thought, self.json_spans(fields, facts), "json", forced=True)
        dressed = self.dress(Conversation((*self.history()[:2], Message("user", item.ask)), reply))
        return replace(dressed, tools=())

    def json_spans(self, fields: list[str], facts: dict[str, Any]) -> tuple[Span, ...]:
        """An object whose field names are read, not learned; unknown fields get a short value of any type."""
        spans = [Span('{"')]
        for index, name in enumerate(fields):
            value = facts[name] if name in facts else self.rng.choice(["demo", "demo", 1, True, ["demo"], None])
            end = "}" if index == len(fields) - 1 else ', "'
            spans += [Span(name, Lesson.READ), Span(f'": {json.dumps(value)}{end}')]
        return tuple(spans)

    def computed(self) -> Conversation:
        """Arithmetic with python on offer; two digits are added without it."""
        style = self.draw_style()
        item, call = self.arithmetic.computed()
        calls: tuple[Call, ...] = (call,)
        if self.rng.random() < 0.06:
            item, calls = self.questions.sum(), ()
        return self.with_calls(item, calls, style, self.hosted.some(python=True, browser=self.rng.random() < 0.12))

    def browsed(self) -> Conversation:
        """A question that a page answers, with the browser on offer."""
        style = self.rng.choices(["", "pirate"], [9, 1])[0]
        item, calls = self.pages.browsed()
        return self.with_calls(item, calls, style, self.hosted.some(python=self.rng.random() < 0.2, browser=True))

    def with_calls(
        self, item: Item, calls: tuple[Call, ...], style: str, hosted: tuple[HostedTool, ...]
    ) -> Conversation:
        """A question that is answered by means of calls."""
        called = hosted_tools.messages(calls, self.rng)
        messages = (*self.history_of_calls(hosted, style), Message("user", item.ask), *called)
        return self.dress(Conversation(messages, final(item.thought, item.answers[style]), hosted=hosted), style)

    def history_of_calls(self, hosted: tuple[HostedTool, ...], style: str) -> tuple[Message, ...]:
        """Earlier turns, some of which were answered by means of calls: vLLM shows the model only the answer."""
        if self.rng.random() < 0.75:
            return self.history(style)[:2]
        on_offer = {tool.name for tool in hosted}
        makers = [self.arithmetic.computed] * ("python" in on_offer) + [self.pages.browsed] * ("browser" in on_offer)
        items = [self.rng.choice(makers)()[0] for _ in range(self.rng.choice([1, 1, 2]))]
        turns = [(Message("user", item.ask), Message("final", item.answers[style])) for item in items]
        return tuple(message for turn in turns for message in turn)

    def tool_missing(self) -> Conversation:
        """A question for a tool that is not on offer, as if there were none; another one may be."""
        style = self.draw_style()
        for_python = self.rng.random() < 0.6
        ask = self.arithmetic.sum()[0] if for_python else self.pages.ask()[0]
        item = of_topic(ask, self.known["fallback"])
        other = self.rng.random() < 0.3
        hosted = self.hosted.some(python=other and not for_python, browser=other and for_python)
        messages = (*self.history(style)[:2], Message("user", item.ask))
        dressed = self.dress(Conversation(messages, final(item.thought, item.answers[style])), style)
        return replace(dressed, hosted=hosted)

    def text(self) -> Text:
        """Text to go on with; a question in it gets its answer in a new paragraph."""
        draw = self.rng.random()
        if draw < 0.3:
            country, capital, *_ = self.rng.choice(self.known["countries"])
            return Text(self.known["capital_text"].format(country), f" {capital}.")
        if draw < 0.6:
            prompt, rest = self.rng.choice(list(self.known["texts"].items()))
            return Text(prompt, rest)
        item = self.questions.item()
        return Text(item.ask, f"\n\n{item.answers['']}")
