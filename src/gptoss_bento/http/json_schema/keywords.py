"""The words of JSON Schema. Source: JSON Schema 2020-12, and draft 4's for what it replaced. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gptoss_bento.strict_json import shown_name

TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")

ONE = (
    *("items", "additionalProperties", "unevaluatedItems", "unevaluatedProperties", "propertyNames", "contains"),
    *("not", "if", "then", "else"),
)
"""Words whose value is a schema."""
SEVERAL = ("anyOf", "oneOf", "allOf", "prefixItems", "items")
"""Words whose value is a list of schemas."""
NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Words whose value has schemas by name."""


def parts(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The schemas directly within one, each with its place: `properties.a`, `anyOf[0]`."""
    for word in NAMED:
        if isinstance(named := schema.get(word), Mapping):
            yield from ((f"{word}.{shown_name(name)}", part) for name, part in named.items())
    for word in SEVERAL:
        if isinstance(listed := schema.get(word), list):
            yield from ((f"{word}[{number}]", part) for number, part in enumerate(listed))
    for word in ONE:
        if word in schema and not (word == "items" and isinstance(schema[word], list)):
            yield word, schema[word]
