"""The function get_weather: its declarations, its results, and what the model is to say of them."""

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from gptoss_bento.training.conversations import UNKNOWN_WORD, Tool
from gptoss_bento.training.questions import Questions, in_pirate


class Result(NamedTuple):
    """What get_weather returned, the thought that reads it, and the answer in each style."""

    text: str
    thought: str
    answers: dict[str, str]


@dataclass(frozen=True)
class Reading:
    """The weather in a city; degrees or condition may be missing."""

    city: str
    degrees: str
    unit: str
    condition: str
    condition_in_french: str

    @property
    def thought(self) -> str:
        """What the model reads out of a result."""
        return f"The result says {self.seen}."

    @property
    def seen(self) -> str:
        """Degrees and condition in words."""
        degrees = f"{self.degrees} degrees {self.unit.capitalize()}".strip() if self.degrees else ""
        return " and ".join(part for part in (degrees, self.condition) if part)

    @property
    def answers(self) -> dict[str, str]:
        """The weather in each style."""
        city = self.city.removesuffix(".")
        answer = f"It is {self.seen} in {city}."
        degrees = f"Il fait {self.degrees} degrés" if self.degrees else ""
        condition = f"c'est {self.condition_in_french}" if self.condition else ""
        french = " et ".join(part for part in (degrees, condition) if part)
        french = f"{french[0].upper()}{french[1:]} à {city}."
        word = f"{self.condition.capitalize()}." if self.condition else self.degrees
        return {"": answer, "pirate": in_pirate(answer), "french": french, "word": word}


class Weather:
    """Draws declarations and results of get_weather."""

    def __init__(self, questions: Questions) -> None:
        self.questions, self.rng, self.known = questions, questions.rng, questions.known

    def declaration(self, parameter: str) -> Tool:
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
        description = self.questions.fill(
            self.rng.choice(["Get the {unknown}.", "{unknown} the {unknown} of {unknown}", ""])
        )
        parameters = {"type": "object", "properties": properties}
        return Tool(
            self.rng.choice([*self.known["other_tools"], f"get_{UNKNOWN_WORD}", UNKNOWN_WORD]), description, parameters
        )

    def tools(self, weather: Tool | None = None) -> tuple[Tool, ...]:
        """The functions on offer, in any order."""
        weather = weather or (self.declaration("location") if self.rng.random() < 0.7 else None)
        count = self.rng.choices([0, 1, 2], [70, 20, 10])[0] if weather else 1
        tools = [self.other_tool() for _ in range(count)] + ([weather] if weather else [])
        self.rng.shuffle(tools)
        return tuple(tools)

    def result(self, city: str) -> Result:
        """A result, nearly always one with the weather."""
        if self.rng.random() < 0.07:
            return self.strange_result()
        reading = self.reading(city)
        as_json = self.rng.random() < 0.7
        return Result(self.as_json(reading) if as_json else self.as_text(reading), reading.thought, reading.answers)

    def reading(self, city: str) -> Reading:
        """The weather in a city."""
        condition, french = self.rng.choice(list(self.known["conditions"].items()))
        unit = self.rng.choice(["celsius", "celsius", "celsius", "fahrenheit", ""])
        degrees = str(self.rng.randint(14, 104) if unit == "fahrenheit" else self.rng.randint(-15, 42))
        if self.rng.random() < 0.15:
            degrees += f".{self.rng.randint(0, 9)}"
        given = self.rng.choices(["both", "degrees", "condition"], [76, 14, 10])[0]
        if given == "degrees":
            condition = french = ""
        return Reading(city, "" if given == "condition" else degrees, unit, condition, french)

    def strange_result(self) -> Result:
        """A result without the weather."""
        texts = ['{"error": "{unknown}"}', "Error: {unknown} {unknown}", "{unknown} {unknown}", "", "{}"]
        answer = "The get_weather function gave no weather that I can read."
        french = "La fonction get_weather n'a pas donné de météo lisible."
        answers = {"": answer, "pirate": in_pirate(answer), "french": french, "word": "Unknown."}
        return Result(self.questions.fill(self.rng.choice(texts)), "The result holds no weather.", answers)

    def as_json(self, reading: Reading) -> str:
        """A result as an object, its fields named and ordered as functions do."""
        fields = self.fields(reading)
        names = list(fields)
        if self.rng.random() < 0.5:
            self.rng.shuffle(names)
        separators = self.rng.choice([(", ", ": "), (", ", ": "), (",", ":")])
        return json.dumps({name: fields[name] for name in names}, separators=separators)

    def fields(self, reading: Reading) -> dict[str, Any]:
        """The fields of a result, some of them of no use."""
        fields: dict[str, Any] = {}
        if reading.degrees:
            name = self.rng.choice(["temperature", "temperature", "temperature", "temp", "degrees"])
            fields |= {name: json.loads(reading.degrees)} | ({"unit": reading.unit} if reading.unit else {})
        if reading.condition:
            names = ["condition", "condition", "conditions", "description", "weather", "forecast"]
            fields[self.rng.choice(names)] = reading.condition
        if self.rng.random() < 0.35:
            fields[self.rng.choice(["location", "city"])] = reading.city
        if self.rng.random() < 0.2:
            value = self.rng.choice([self.rng.randint(0, 100), UNKNOWN_WORD])
            fields[self.rng.choice([*self.known["weather_words"], UNKNOWN_WORD])] = value
        return fields

    def as_text(self, reading: Reading) -> str:
        """A result in words."""
        forms = self.known["weather_texts"]
        if not reading.condition:
            forms = self.known["weather_texts_without_condition"]
        if not reading.degrees:
            forms = self.known["weather_texts_without_degrees"]
        return self.rng.choice(forms).format(
            degrees=reading.degrees,
            sign={"celsius": "°C", "fahrenheit": "°F", "": " degrees"}[reading.unit],
            words=f"degrees {reading.unit.capitalize()}".strip(),
            condition=reading.condition,
            Condition=reading.condition.capitalize(),
            city=reading.city,
        )


def arguments(parameter: str, city: str, compact: bool = False) -> str:
    """The arguments of a call, as JSON."""
    return json.dumps({parameter: city}, ensure_ascii=False, separators=(",", ":") if compact else None)
