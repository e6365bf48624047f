from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from gptoss_bento.http.json_schema.faults import DEEPEST, Severity, faults
from tests.unit.http.json_schema.schemas import known, whatever, with_definitions


def found(schema: Any) -> list[tuple[str, str]]:
    return [(fault.place, fault.reason) for fault in faults(schema)]


@pytest.mark.parametrize(
    ("schema", "place", "reason"),
    [
        (
            {"type": "strin"},
            "type",
            'must be one or a list of "array", "boolean", "integer", "null", "number", "object"',
        ),
        ({"type": 5}, "type", "must be one"),
        ({"type": []}, "type", "must be one"),
        ({"properties": {"a": {"type": "x"}}}, "properties.a.type", "must be one"),
        ({"properties": [1]}, "properties", "must be an object of schemas, got [1]"),
        ({"properties": {"a": 1}}, "properties.a", "must be a schema, which is an object or a boolean, got 1"),
        ({"anyOf": []}, "anyOf", "must be a list of at least one schema, got []"),
        ({"allOf": [{}, False]}, "allOf", "accepts no value"),
        ({"anyOf": [False]}, "anyOf", "accepts no value"),
        ({"anyOf": [{}, {"type": 1}]}, "anyOf[1].type", "must be one"),
        ({"required": "a"}, "required", 'must be a list of names, got "a"'),
        ({"properties": {"a": {"required": True}}}, "properties.a.required", "must be a list of names, got true"),
        ({"enum": []}, "enum", "must be a list of at least one value, got []"),
        ({"minimum": "a"}, "minimum", 'must be a number, got "a"'),
        ({"minimum": 5, "maximum": 2}, "minimum", "5 is above maximum 2: no value fits"),
        ({"minLength": 5, "maxLength": 2}, "minLength", "5 is above maxLength 2: no value fits"),
        ({"exclusiveMinimum": 2, "maximum": 2}, "exclusiveMinimum", "2 is not below maximum 2: no value fits"),
        (
            {"type": "integer", "exclusiveMinimum": 5, "exclusiveMaximum": 6},
            "exclusiveMinimum",
            "5 and exclusiveMaximum 6",
        ),
        ({"minLength": -1}, "minLength", "must be an integer from 0, got -1"),
        ({"minItems": 1, "items": False}, "minItems", "1 is more than may be there: no value fits"),
        ({"minProperties": 1, "additionalProperties": False}, "minProperties", "1 is more than may be there"),
        ({"multipleOf": 0}, "multipleOf", "must be above 0, got 0"),
        ({"pattern": "["}, "pattern", "has an unclosed [ at position 0"),
        ({"pattern": 1}, "pattern", "must be a string, got 1"),
        ({"patternProperties": {"(": {}}}, "patternProperties.(", "has an unclosed ( at position 0"),
        ({"$ref": "#/$defs/missing"}, "$ref", "#/$defs/missing does not exist"),
        ({"$ref": "#"}, "$ref", "# refers to itself"),
        ({"$ref": 1}, "$ref", "must be a string, got 1"),
        ({"$ref": "#/title", "title": "x"}, "$ref", "#/title is not a schema"),
        ({"$defs": {"A": {"items": {"type": "x"}}}}, "$defs.A.items.type", "must be one"),
        (False, "", "accepts no value"),
        (3, "", "must be a schema, which is an object or a boolean, got 3"),
    ],
)
def test_fault_has_its_place_and_reason(schema: Any, place: str, reason: str) -> None:
    ((where, why), *_) = found(schema)

    assert where == place
    assert why.startswith(reason)
    assert next(faults(schema)).severity is Severity.INVALID


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"pattern": r"\bword"}, "pattern"),
        ({"$ref": "https://example.com/place.json"}, "$ref"),
        ({"items": [{"type": "string"}]}, "items"),
        ({"minimum": 5, "exclusiveMinimum": True}, "exclusiveMinimum"),
        ({"type": "integer", "minimum": 1.5}, "minimum"),
        ({"type": "integer", "maximum": 10**30}, "maximum"),
        ({"maxLength": 10**20}, "maxLength"),
    ],
)
def test_schema_without_a_grammar_is_no_invalid_one(schema: Any, place: str) -> None:
    (fault,) = faults(schema)

    assert (fault.place, fault.severity) == (place, Severity.NO_GRAMMAR)


def test_circle_of_references_is_found() -> None:
    schema = {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}}

    assert ("$ref", "#/$defs/A refers to itself") in found(schema)


def test_type_that_contains_itself_is_right() -> None:
    assert found({"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}}) == []


def test_deep_schema_is_refused_without_a_walk_through_it() -> None:
    schema: Any = {}
    for _ in range(DEEPEST + 1):
        schema = {"items": schema}

    assert found(schema) == [("", "must have at most 64 levels of objects and arrays")]


@given(with_definitions(known))
def test_schema_that_is_right_has_no_fault_but_circles(schema: dict[str, Any]) -> None:
    assert [reason for _, reason in found(schema) if "itself" not in reason] == []


@given(whatever)
def test_whatever_a_client_sends_is_looked_through(schema: Any) -> None:
    list(faults(schema))
