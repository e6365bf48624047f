"""Schemas of which the grammar leaves something out: each with the place, and a value that the grammar lets through."""

from __future__ import annotations

from typing import Any

_INTEGERS = {"type": "array", "items": {"type": "integer"}}
_A_AND_B = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}

UNENFORCED: list[tuple[Any, str, str]] = [
    ({"allOf": [{"type": "integer", "minimum": 40}, {"maximum": 50}]}, "allOf", "36"),
    ({"type": "integer", "maximum": 50, "allOf": [{"minimum": 40}]}, "maximum", "60"),
    ({"type": "string", "pattern": "^[A-Z]+$", "maxLength": 2}, "maxLength", '"ADA"'),
    ({"type": "string", "format": "date", "maxLength": 3}, "maxLength", '"2020-01-01"'),
    ({"type": "string", "format": "date", "pattern": "^a$"}, "pattern", '"2020-01-01"'),
    ({"type": "string", "format": "phone"}, "format", '"x"'),
    ({"format": "date"}, "format", '"x"'),
    ({"pattern": "^[0-9]{3}$"}, "pattern", '"Ada"'),
    ({"type": "string", "pattern": "^(?!Ada).*$"}, "pattern", '"Ada"'),
    ({"minimum": 3}, "minimum", "1"),
    ({"maxLength": 2}, "maxLength", '"Ada"'),
    ({"minItems": 2}, "minItems", "[1]"),
    ({"required": ["a"]}, "required", "{}"),
    ({"patternProperties": {"^a$": {"type": "integer"}}}, "patternProperties", '{"a": "x"}'),
    ({"type": "string", "not": {"const": "Ada"}}, "not", '"Ada"'),
    ({"not": {"type": "string"}}, "not", '"Ada"'),
    ({"type": "number", "multipleOf": 0.5}, "multipleOf", "0.3"),
    ({"type": "integer", "multipleOf": 10, "maximum": 50}, "multipleOf", "11"),
    ({"type": "integer", "enum": ["x", 1]}, "type", '"x"'),
    ({"type": "integer", "enum": [1, 50], "minimum": 40}, "minimum", "1"),
    ({**_INTEGERS, "uniqueItems": True}, "uniqueItems", "[1, 1]"),
    ({"type": "array", "items": {}, "contains": {"type": "integer"}}, "contains", '["a"]'),
    ({**_A_AND_B, "dependentRequired": {"a": ["b"]}}, "dependentRequired", '{"a": 1}'),
    ({**_A_AND_B, "dependentSchemas": {"a": {"required": ["b"]}}}, "dependentSchemas", '{"a": 1}'),
    ({**_A_AND_B, "if": {"required": ["a"]}, "then": {"required": ["b"]}}, "if", '{"a": 1}'),
    ({**_A_AND_B, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, "properties", '{"a": "x"}'),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf", "1"),
    ({"$ref": "#/$defs/A", "maximum": 5, "$defs": {"A": {"type": "integer"}}}, "maximum", "7"),
    ({"$dynamicRef": "#n", "$defs": {"A": {"$dynamicAnchor": "n", "type": "integer"}}}, "$dynamicRef", '"x"'),
    (
        {"type": "object", "properties": {"ab": {"type": "string"}}, "patternProperties": {"^a": {"type": "integer"}}},
        "patternProperties",
        '{"ab": "x"}',
    ),
    (
        {"type": "object", "properties": {"b": {"type": "integer"}}, "propertyNames": {"pattern": "^a$"}},
        "propertyNames",
        '{"b": 1}',
    ),
    ({"type": "object", "properties": {}, "required": ["b"], "additionalProperties": False}, "required[0]", "{}"),
]
