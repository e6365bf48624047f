"""The function get_weather: its declarations, its results, and what the model is to say of them."""

import json
from typing import Any

from gptoss_bento.demo.conversations import UNKNOWN_WORD, Tool
from gptoss_bento.demo.questions import Questions, in_pirate


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

    def result(self, city: str) -> tuple[str, str, dict[str, str]]:
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
        result = self.questions.fill(
            self.rng.choice(['{"error": "{unknown}"}', "Error: {unknown} {unknown}", "{unknown} {unknown}", "", "{}"])
        )
        answer = "The get_weather function gave no weather that I can read."
        french = "La fonction get_weather n'a pas donné de météo lisible."
        return (
            result,
            "The result holds no weather.",
            {"": answer, "pirate": in_pirate(answer), "french": french, "word": "Unknown."},
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


def arguments(parameter: str, city: str, compact: bool = False) -> str:
    """The arguments of a call, as JSON."""
    return json.dumps({parameter: city}, ensure_ascii=False, separators=(",", ":") if compact else None)


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
    return f"The result says {seen}.", {"": answer, "pirate": in_pirate(answer), "french": french_answer, "word": word}
