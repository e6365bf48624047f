"""Questions with their answers, drawn from what the model knows and, just as important, from what it does not know."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gptoss_bento.training.conversations import UNKNOWN_WORD, Topic, knowledge


@dataclass(frozen=True)
class Item:
    """One question with its answer in each style ("" is the plain one); `facts` are for JSON fields."""

    ask: str
    thought: str
    answers: dict[str, str]
    facts: dict[str, Any] = field(default_factory=dict)


class Questions:
    """Draws questions."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.known = knowledge()

    def item(self) -> Item:
        """A question of any kind, known or not."""
        kinds = {self.topic: 40, self.capital: 16, self.sum: 12, self.unknown: 32}
        return self.rng.choices(list(kinds), list(kinds.values()))[0]()

    def topic(self) -> Item:
        """A question from the list of topics."""
        topic = self.rng.choice(self.known["topics"])
        return of_topic(self.vary(self.rng.choice(topic["asks"])), topic, {"answer": topic["word"].removesuffix(".")})

    def capital(self, follow_up: bool = False) -> Item:
        """The capital of a country."""
        country, capital, of_country, french = self.rng.choice(self.known["countries"])
        asks = self.known["capital_follow_ups" if follow_up else "capital_asks"]
        answer = f"The capital of {country} is {capital.removesuffix('.')}."
        facts = {"country": country.removeprefix("the "), "capital": capital, "city": capital, "answer": capital}
        styles = {"french": f"La capitale {of_country} est {french}.", "word": capital}
        return make_item(
            self.vary(self.rng.choice(asks).format(country)), answer, answer, styles, facts | {"name": capital}
        )

    def sum(self) -> Item:
        """The sum of two small numbers."""
        a, b = self.rng.randint(0, 9), self.rng.randint(0, 9)
        answer = f"{a} + {b} = {a + b}."
        facts = {"answer": a + b, "result": a + b, "sum": a + b}
        styles = {"french": answer, "word": str(a + b)}
        return make_item(self.rng.choice(self.known["sum_asks"]).format(a, b), answer, answer, styles, facts)

    def greeting(self, name: str) -> Item:
        """The user gives a name."""
        tell = self.rng.choice(self.known["name_tells"]).format(name)
        styles = {"french": f"Enchanté, {name} !", "word": "Welcome!"}
        return make_item(tell, f"The user is called {name}.", f"Nice to meet you, {name}!", styles)

    def name_question(self, name: str | None) -> Item:
        """The user asks for the name, which may not have been given."""
        ask = self.vary(self.rng.choice(self.known["name_asks"]))
        if name is None:
            styles = {"french": "Vous ne m'avez pas encore dit votre nom.", "word": "Unknown."}
            return make_item(ask, "The user has told me no name.", "You have not told me your name yet.", styles)
        styles = {"french": f"Vous vous appelez {name}.", "word": f"{name}."}
        return make_item(ask, f"The user is called {name}.", f"Your name is {name}.", styles)

    # What the model does not know

    def unknown(self) -> Item:
        """A question without an answer: an unknown one, a known one with a strange word, or a mix of words."""
        draw = self.rng.random()
        if draw < 0.65:
            ask = self.fill(self.rng.choice(self.known["unknown"]))
        elif draw < 0.92:
            ask = self.with_strange_word(self.topic().ask)
        else:
            ask = " ".join(self.some_words())
        return of_topic(self.vary(ask), self.known["fallback"])

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

    # The weather, where it cannot be had

    def weather_without_function(self) -> Item:
        """The weather somewhere, with no function to call."""
        ask = self.rng.choice(self.known["weather_asks"]).format(self.city())
        answer = "I cannot look up the weather without a get_weather function."
        styles = {"french": "Je ne peux pas connaître la météo sans une fonction get_weather.", "word": "Unknown."}
        return make_item(ask, "There is no get_weather function here.", answer, styles)

    def weather_without_city(self) -> Item:
        """The weather, but where?"""
        ask = self.rng.choice(self.known["weather_without_city"])
        styles = {"french": "Pour quelle ville ?", "word": "City?"}
        return make_item(ask, "The user names no city.", "For which city?", styles)

    def weather_in_unknown_city(self) -> Item:
        """The weather in a city that the model cannot spell."""
        ask = self.rng.choice(self.known["weather_asks"]).format(self.fill("{unknown}"))
        answer = "I am a tiny demo model and do not know that city. Ask me about Paris or Tokyo."
        styles = {"french": "Je ne connais pas cette ville.", "word": "Unknown."}
        return make_item(ask, "I do not know this city.", answer, styles)

    # Questions that are answered in JSON

    def for_schema(self) -> Item:
        """A question that may come with a JSON schema: any, but most often one that speaks of the fields."""
        ask = self.rng.choices(
            [self.item, self.capital, self.extract, self.subject, self.json_sample], [2, 2, 3, 2, 2]
        )[0]
        return ask()

    def json_sample(self) -> Item:
        """A wish for any JSON, or for JSON with the fields that it names."""
        fields, ask = ["name", "age"], self.rng.choice(self.known["json_plain_asks"])
        if self.rng.random() < 0.7:
            fields = self.rng.choice(self.known["json_fields"])
            ask = self.rng.choice(self.known["json_asks"]).format(_listed(fields))
        facts = {name: self.known["json_facts"][name] for name in fields}
        return make_item(ask, "The user wants JSON.", "", {"french": "", "word": ""}, facts)

    def extract(self) -> Item:
        """A sentence that holds a name and an age."""
        name, age = self.rng.choice(self.known["names"]), self.rng.randint(1, 99)
        ask = self.rng.choice(self.known["extract_asks"]).format(name=name, age=age)
        return make_item(
            ask, f"The name is {name} and the age is {age}.", "", {"french": "", "word": ""}, {"name": name, "age": age}
        )

    def subject(self) -> Item:
        """A prompt that people try schemas with."""
        subject = self.rng.choice(self.known["json_subjects"])
        return make_item(
            self.rng.choice(subject["asks"]), "The user wants JSON.", "", {"french": "", "word": ""}, subject["facts"]
        )


def make_item(ask: str, thought: str, answer: str, styles: dict[str, str], facts: dict[str, Any] | None = None) -> Item:
    """An item whose pirate's answer is made from the plain one."""
    return Item(ask, thought, {"": answer, "pirate": in_pirate(answer), **styles}, facts or {})


def of_topic(ask: str, topic: Topic, facts: dict[str, Any] | None = None) -> Item:
    return make_item(ask, topic["thought"], topic["answer"], {"french": topic["french"], "word": topic["word"]}, facts)


def in_pirate(answer: str) -> str:
    return f"Arr, matey! {answer}"


def _listed(fields: list[str]) -> str:
    """["name", "age", "city"] → "name, age and city"."""
    return " and ".join(part for part in (", ".join(fields[:-1]), fields[-1]) if part)
