"""What is wrong with a job's input, in words: the field, its value, and what would be right. Pure.

The models check, by pydantic; what it finds is put into words here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError
from pydantic_core.core_schema import custom_error_schema

from gptoss_bento.strict_json import encodable, shown

M = TypeVar("M", bound=BaseModel)

_SENTENCE = "{name} must be {words}, got {value}"
_OURS = "wrong"  # the type of errors whose message is a sentence with {name} and {value}
_UNKNOWN = "extra_forbidden"


@dataclass(frozen=True)
class Must:
    """An annotation: what a value must be. One error with these words covers all that is wrong in the value.

    Args:
        words: follow "must be" in the error, and describe the value in the OpenAPI document.
        sentence: the error, where it differs.
    """

    words: str
    sentence: str = _SENTENCE

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        text = self.sentence.replace("{words}", self.words)
        return custom_error_schema(handler(source), custom_error_type=_OURS, custom_error_message=text)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        described = handler(schema)
        return described if "$ref" in described else {"description": self.words, **described}


def wrong(words: str, sentence: str = _SENTENCE) -> PydanticCustomError:
    """What a validator raises where `Must` cannot be used, for it hides the errors of parts: the same error."""
    return PydanticCustomError(_OURS, sentence.replace("{words}", words))


class Problem(NamedTuple):
    """One wrong field of a model, and the sentence about it, without its full stop."""

    field: str
    sentence: str


def _unknown(name: str, value: Any) -> str:
    return f"{shown(name)[1:-1]} is not known, got {shown(value)}"


def checked(
    model: type[M], given: Mapping[str, Any], unknown: Callable[[str, Any], str] = _unknown
) -> tuple[M | None, list[Problem]]:
    """A model of what was given, or None and all that is wrong.

    Args:
        model: the model.
        given: the fields, as they came in JSON.
        unknown: the sentence about a name that the model forbids, and its value.
    """
    try:
        return model.model_validate(given), []
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
    return None, [_problem(each, given, unknown) for each in found]


def sentences(problems: Iterable[Problem]) -> list[str]:
    """The sentences alone."""
    return [each.sentence for each in problems]


def text_of(found: Iterable[str]) -> str:
    """All sentences as one text, with their full stops."""
    return " ".join(sentence if sentence.endswith("?") else f"{sentence}." for sentence in found)


def _problem(error: ErrorDetails, given: Mapping[str, Any], unknown: Callable[[str, Any], str]) -> Problem:
    where = error["loc"]
    if error["type"] == _UNKNOWN or not where:  # pydantic gives a name that is no Unicode as the value
        name = str(where[0] if where else error["input"])
        return Problem(name, unknown(name, given.get(name)))
    return Problem(str(where[0]), _sentence(error, _path(where)))


def _sentence(error: ErrorDetails, name: str) -> str:
    value = error["input"]
    if isinstance(value, str) and not encodable(value):
        return f"{name} must be valid Unicode, got {shown(value)}"
    if error["type"] == _OURS:
        return error["msg"].format(name=name, value=shown(value))
    return f"{name} is wrong: {error['msg']}, got {shown(value)}"


def _path(where: tuple[int | str, ...]) -> str:
    """("messages", 0, "role"): messages[0].role"""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).removeprefix(".")
