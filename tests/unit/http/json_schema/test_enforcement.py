from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from gptoss_bento.http.json_schema.enforcement import unenforced
from gptoss_bento.http.json_schema.faults import Severity, faults
from tests.unit.http.json_schema.schemas import known, whatever, with_definitions
from tests.unit.http.json_schema.unenforced import UNENFORCED


def places(schema: Any) -> list[str]:
    return [fault.place for fault in unenforced(schema)]


@pytest.mark.parametrize(("schema", "place"), [(schema, place) for schema, place, _ in UNENFORCED])
def test_word_that_is_passed_over_is_named(schema: Any, place: str) -> None:
    assert place in places(schema) or place in [
        fault.place for fault in faults(schema) if fault.severity is Severity.NOT_ENFORCED
    ]


PLACE = {"type": "object", "properties": {"kind": {"const": "place"}}, "required": ["kind"]}
TIME = {"type": "object", "properties": {"kind": {"const": "time"}}, "required": ["kind"]}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "minimum": 1, "maximum": 5},
        {"type": "integer", "multipleOf": 5},
        {"type": ["integer", "null"], "multipleOf": 5},
        {"type": "string", "pattern": "^a$"},
        {"type": "string", "minLength": 1, "maxLength": 2},
        {"type": "string", "format": "date-time"},
        {"type": "string", "format": "password", "minLength": 8},
        {"type": "string", "minimum": 5},  # says nothing of strings
        {"type": "string", "enum": ["a", "b"], "description": "x", "default": "a"},
        {"type": ["string", "null"], "enum": ["a", None]},
        {"type": "integer", "const": 1},
        {"$ref": "#/$defs/P", "description": "x", "$defs": {"P": PLACE}},
        {"type": "object", "$ref": "#/$defs/P", "$defs": {"P": PLACE}},
        {"allOf": [{"$ref": "#/$defs/P"}], "default": {}, "$defs": {"P": PLACE}},
        {"anyOf": [{"type": "string"}, {"type": "null"}], "title": "x"},
        {"type": "object", "anyOf": [PLACE, TIME]},
        {"oneOf": [{"type": "string"}, {"type": "null"}]},
        {"oneOf": [PLACE, TIME]},
        {"oneOf": [{"$ref": "#/$defs/P"}, {"$ref": "#/$defs/T"}], "$defs": {"P": PLACE, "T": TIME}},
        {"oneOf": [{"const": 1}, {"const": 2}]},
        {"type": "array", "items": {}, "minItems": 1, "maxItems": 2},
        {"type": "array", "prefixItems": [{}], "items": False},
        {"type": "array", "uniqueItems": False},
        {"properties": {"a": {"type": "string"}}, "required": ["a", "b"]},
        {"type": "object", "additionalProperties": {"type": "string"}, "propertyNames": {"maxLength": 2}},
        {"type": "object", "patternProperties": {"^a": {"type": "string"}}, "additionalProperties": False},
        {"type": "object", "properties": {"not": {"type": "string"}, "if": {"type": "string"}}, "minProperties": 1},
        {},
        True,
    ],
)
def test_schema_that_is_enforced_has_nothing_to_name(schema: Any) -> None:
    assert places(schema) == []


def test_each_word_is_named() -> None:
    schema = {
        "type": "object",
        "properties": {
            "age": {"allOf": [{"type": "integer", "minimum": 40}, {"maximum": 50}]},
            "name": {"type": "string", "pattern": "^[A-Z]+$", "maxLength": 2, "not": {"const": "ADA"}},
        },
    }

    assert places(schema) == [
        "properties.age.allOf",
        "properties.age.allOf[1].maximum",
        "properties.name.not",
        "properties.name.maxLength",
    ]


@given(with_definitions(known))
def test_schema_with_types_is_looked_through(schema: dict[str, Any]) -> None:
    if not any(fault.severity is Severity.INVALID for fault in faults(schema)):
        list(unenforced(schema))


@given(whatever)
def test_whatever_has_no_faults_is_looked_through(schema: Any) -> None:
    if not list(faults(schema)):
        list(unenforced(schema))
