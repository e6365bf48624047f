"""A tool's schemas, which a server writes as it likes: what a prompt can take of the one, what is checked of the other.

vLLM's `trim_schema` fails for `anyOf` of objects and of references, and keeps any length. Here a reference becomes what
it points at, so that the length of a schema is that of its text in the prompt; `http/json_schema/typescript.py` writes
that text, and knows all that is kept. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from typing import Any

from gptoss_bento.strict_json import dumps

_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
_MOST_SCHEMAS = 400  # in one schema; definitions that use each other twice grow as 2 to the power of their number
_MOST_VALUES = 200  # of an enum, of properties, of a list of names or of schemas
_MOST_REFERENCES = 20  # within each other
_NAME_CHARS = 128
_NUMBER_CHARS = 40
_PROPERTY = re.compile(
    rf"[\w$@#.:/ -]{{1,{_NAME_CHARS}}}"
)  # nothing with which a name could end its type in the prompt
_NAMED = ("properties", "patternProperties")
_SEVERAL = ("anyOf", "oneOf", "allOf", "prefixItems")
_ONE = ("items", "additionalProperties")
_TEXTS = ("description",)
_VALUES = ("default", "const", "enum", "examples")
_NUMBERS = ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems")
_DEFINITIONS = ("$defs", "definitions")
_TYPES: Mapping[str, Any] = {
    "array": list,
    "boolean": bool,
    "integer": int,
    "null": type(None),
    "number": (int, float),
    "object": Mapping,
    "string": str,
}


@dataclass(frozen=True)
class _Detail:
    """How much of a schema is kept: levels, and characters of a description or of a value."""

    levels: int
    chars: int


_DETAILS = (_Detail(12, 1000), _Detail(8, 200), _Detail(4, 60), _Detail(2, 0))


def prompt_schema(schema: Any, most_chars: int) -> Mapping[str, Any]:
    """A schema of arguments for the prompt: an object, without references, of a bounded length.

    What is too long loses examples and long descriptions, then inner levels, then all but that it is an object.

    Args:
        schema: any JSON.
        most_chars: of its JSON.
    """
    for detail in _DETAILS:
        trimmed = _Trimmer(schema, detail).whole()
        if len(dumps(trimmed)) <= most_chars:
            return trimmed
    return _ANY_OBJECT


def is_short(value: Any, most_chars: int) -> bool:
    """Whether the JSON of a value has about so many characters at most. What is longer is not read to its end.

    Numbers that JSON does not know (the client's parser takes NaN) are too long.
    """
    return _left_of(value, most_chars) >= 0


def _left_of(value: Any, most: int) -> int:
    if isinstance(value, str):
        return most - len(value) - 2
    if isinstance(value, int) and not isinstance(value, bool):
        return most - 1 - value.bit_length() // 3
    if not isinstance(value, Mapping | list):
        return most - 5 if not isinstance(value, float) or isfinite(value) else -1
    parts = value.items() if isinstance(value, Mapping) else (("", each) for each in value)
    for name, part in parts:
        most = _left_of(part, most - len(name) - 1)
        if most < 0:
            break
    return most - 2


def mismatch(schema: Mapping[str, Any] | None, value: Any) -> str | None:
    """How a structured result differs from what its server says that it returns; None: it does not.

    Types, and required properties, of the first two levels. No more: the schema is the server's own, and a pattern of
    its could keep a validator at work for hours.
    """
    if schema is None:
        return None
    if wrong := _wrong_type(schema, value):
        return f"the result {wrong}"
    if not isinstance(value, Mapping):
        return None
    if missing := [name for name in _strings(schema.get("required")) if name not in value]:
        return f"the result has no {_name(missing[0])!r}"
    properties = _mapping(schema.get("properties"))
    inner = ((name, _wrong_type(_mapping(part), value[name])) for name, part in properties.items() if name in value)
    return next((f"{_name(name)!r} of the result {wrong}" for name, wrong in inner if wrong), None)


def _wrong_type(schema: Mapping[str, Any], value: Any) -> str | None:
    named = schema.get("type")
    kinds = [kind for kind in (named if isinstance(named, list) else [named]) if isinstance(kind, str)]
    if not kinds or any(kind not in _TYPES or _is_of(kind, value) for kind in kinds):
        return None
    return f"is not of the type {' or '.join(kinds)}"


def _is_of(kind: str, value: Any) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES[kind]) or (kind == "integer" and isinstance(value, float) and value.is_integer())


class _Trimmer:
    """Copies what is kept of one schema.

    Args:
        root: the whole, into which its references point.
        detail: how much is kept.
    """

    def __init__(self, root: Any, detail: _Detail) -> None:
        self._root = root
        self._detail = detail
        self._left = _MOST_SCHEMAS
        self._open: list[str] = []  # the references within which a schema is being copied

    def whole(self) -> dict[str, Any]:
        """All of it, as the schema of an object."""
        schema = self._schema(self._root, 0)
        if schema.get("type") != "object":
            schema["type"] = "object"
        return schema

    def _schema(self, schema: Any, level: int) -> dict[str, Any]:
        """A part of it. What is no schema, or too deep, is that of any value."""
        self._left -= 1
        if not isinstance(schema, Mapping) or self._left < 0:
            return {}
        if isinstance(reference := schema.get("$ref"), str):
            return self._referred(reference, schema, level)
        kept = {word: value for word in ("type", *_NUMBERS) if (value := _plain(schema.get(word))) is not None}
        kept |= dict(self._said(schema))
        if level < self._detail.levels:
            kept |= dict(self._within(schema, level + 1))
        return _simplified(kept)

    def _referred(self, reference: str, schema: Mapping[str, Any], level: int) -> dict[str, Any]:
        """What a reference points at, with what is said beside it. Within itself a type is any value."""
        if reference in self._open or len(self._open) > _MOST_REFERENCES:
            return {}
        self._open.append(reference)
        try:
            found = self._schema(self._target(reference), level)
        finally:
            self._open.pop()
        beside = self._schema({word: value for word, value in schema.items() if word != "$ref"}, level)
        return found | beside

    def _target(self, reference: str) -> Any:
        """Only definitions of the schema itself are looked up; nothing is ever fetched."""
        place, _, name = reference.removeprefix("#/").partition("/")
        return _mapping(_mapping(self._root).get(place)).get(name) if place in _DEFINITIONS else None

    def _said(self, schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Descriptions and values."""
        chars = self._detail.chars
        for word in _TEXTS:
            if chars and isinstance(text := schema.get(word), str) and text.strip():
                line = " ".join(text[: 2 * chars].split())  # a line end could end the comment that it becomes
                yield word, cut(line, chars)
        for word in _VALUES:
            value = schema.get(word)
            if value is None or (word == "examples" and not chars):
                continue
            if word in ("enum", "examples"):
                if listed := [each for each in _listed(value) if self._is_shown(each)]:
                    yield word, listed
            elif self._is_shown(value):
                yield word, value

    def _is_shown(self, value: Any) -> bool:
        if isinstance(value, str) and not value.isprintable():
            return False
        return is_short(value, max(self._detail.chars, _NAME_CHARS))

    def _within(self, schema: Mapping[str, Any], level: int) -> Iterator[tuple[str, Any]]:
        """The schemas within it, and which properties are required."""
        for word in _NAMED:
            if isinstance(named := schema.get(word), Mapping):
                some = islice(named.items(), _MOST_VALUES)
                yield word, {name: self._schema(part, level) for name, part in some if _is_name(name)}
        for word in _SEVERAL:
            if listed := _listed(schema.get(word)):
                yield word, [self._schema(part, level) for part in listed]
        for word in _ONE:
            if word in schema and (schema[word] is False or isinstance(schema[word], Mapping)):
                yield word, schema[word] and self._schema(schema[word], level)
        if required := [name for name in _strings(schema.get("required")) if _is_name(name)]:
            yield "required", required


def _simplified(schema: dict[str, Any]) -> dict[str, Any]:
    """`anyOf` of a type and null as the type: that a property is optional is said elsewhere. Of types, as a list."""
    variants = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    if not variants:
        return {word: value for word, value in schema.items() if word != "anyOf"}
    beside = {word: value for word, value in schema.items() if word != "anyOf"}
    if len(variants) == 1:
        return {**variants[0], **beside}
    if all(each.keys() == {"type"} and isinstance(each["type"], str) for each in variants) and "type" not in beside:
        return {"type": list(dict.fromkeys(each["type"] for each in variants)), **beside}
    return {**beside, "anyOf": variants}


def cut(text: str, most: int) -> str:
    """A text of at most so many characters, with `…` where something is missing."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _plain(value: Any) -> Any:
    """A type, types, or a number; None for anything else."""
    if isinstance(value, list):
        return [each for each in _strings(value) if each in _TYPES] or None
    if isinstance(value, str):
        return value if value in _TYPES else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and is_short(value, _NUMBER_CHARS) else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _listed(value: Any) -> list[Any]:
    return value[:_MOST_VALUES] if isinstance(value, list) else []


def _strings(value: Any) -> Iterable[str]:
    return (each for each in _listed(value) if isinstance(each, str))


def _is_name(name: str) -> bool:
    return _PROPERTY.fullmatch(name) is not None


def _name(name: str) -> str:
    return cut(name, _NAME_CHARS)
