from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given

from gptoss_bento.http.json_schema.typescript import typescript
from tests.unit.http.json_schema.schemas import known, whatever, with_definitions


def of_property(schema: Any, **definitions: Any) -> str:
    """What is written of the only property of an object, on one line."""
    written = typescript({"type": "object", "properties": {"p": schema}, "required": ["p"], "$defs": definitions})
    lines = [line.strip() for line in written.removeprefix("{\n").removesuffix("}").splitlines()]
    return " ".join(line for line in lines if line)


PLACE = {"type": "object", "properties": {"lat": {"type": "number"}, "lon": {"type": "number"}}, "required": ["lat"]}


@pytest.mark.parametrize(
    ("schema", "written"),
    [
        ({"type": "integer"}, "p: number,"),
        ({"type": ["string", "null"]}, "p: string | null,"),
        ({"type": "null"}, "p: null,"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "p: string | null,"),
        ({"anyOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]}, "p: string,"),
        ({"$ref": "#/$defs/Place"}, "p: { lat: number, lon?: number, },"),
        (
            {"allOf": [{"$ref": "#/$defs/Place"}], "default": None},
            "p: { lat: number, lon?: number, }, // default: null",
        ),
        ({"anyOf": [{"$ref": "#/$defs/Place"}, {"type": "null"}]}, "p: | { lat: number, lon?: number, } | null ,"),
        ({"type": "array", "items": {"$ref": "#/$defs/Place"}}, "p: { lat: number, lon?: number, }[],"),
        ({"type": "array", "items": {"type": ["string", "null"]}}, "p: (string | null)[],"),
        ({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}]}, "p: [string, number],"),
        ({"items": {"enum": ["a", "b"]}}, 'p: ("a" | "b")[],'),
        ({"enum": ["a", 1, None, True]}, 'p: "a" | 1 | null | true,'),
        ({"enum": ['say "x"']}, r'p: "say \"x\"",'),
        ({"const": "a"}, 'p: "a",'),
        ({"type": "integer", "enum": [1, 2]}, "p: 1 | 2,"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "p: { [key: string]: number, },"),
        ({"patternProperties": {"^a": {"type": "string"}}}, "p: { [key: string]: string, },"),
        ({"allOf": [{"type": "integer", "minimum": 4}, {"maximum": 5}]}, "p: number,"),
        (
            {"allOf": [{"$ref": "#/$defs/Place"}, {"properties": {"name": {"type": "string"}}}]},
            "p: { lat: number, lon?: number, name?: string, },",
        ),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "string"}},
                "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
            },
            "p: { a?: string, },",
        ),
        ({"pattern": "^a$"}, "p: string,"),
        ({"minimum": 3}, "p: number,"),
        ({"type": "string", "nullable": True}, "p: string | null,"),
        ({"oneOf": [{"type": "string", "description": "a name"}, {"type": "null"}]}, "p: | string // a name | null ,"),
        ({"type": "string", "description": "two\nlines", "default": "x"}, '// two // lines p: string, // default: "x"'),
        ({"not": {"type": "string"}}, "p: any,"),
        ({"$ref": "#/$defs/missing"}, "p: any,"),
        ({"$ref": "https://example.com/schema"}, "p: any,"),
        (False, "p: never,"),
    ],
)
def test_type_of_a_property(schema: Any, written: str) -> None:
    assert of_property(schema, Place=PLACE) == written


def test_property_has_title_and_description_of_what_it_refers_to() -> None:
    place = {**PLACE, "title": "Place", "description": "Where."}

    assert of_property({"$ref": "#/$defs/Place"}, Place=place).startswith("// Place // // Where. p: {")


def test_type_that_contains_itself_is_written_once() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}, "value": {"type": "integer"}}}

    assert (
        of_property({"$ref": "#/$defs/Node"}, Node=node) == "p: { // this type is Node next?: Node, value?: number, },"
    )


def test_parameters_that_contain_themselves_end() -> None:
    written = typescript({"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}})

    assert written == "{\n// this type is parameters\nchildren?: parameters[],\n}"


def test_references_in_a_circle_end() -> None:
    assert of_property({"$ref": "#/$defs/A"}, A={"$ref": "#/$defs/B"}, B={"$ref": "#/$defs/A"}) == "p: A,"


def test_definitions_that_use_each_other_twice_stay_short() -> None:
    doubled = {
        f"D{n}": {"type": "object", "properties": {name: {"$ref": f"#/$defs/D{n + 1}"} for name in "ab"}}
        for n in range(60)
    }

    assert len(of_property({"$ref": "#/$defs/D0"}, **doubled)) < 1_000_000


def test_deep_schema_ends_with_the_kind_of_a_value() -> None:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(300):
        schema = {"type": "array", "items": schema}

    assert "array[][]" in typescript(schema)


@given(with_definitions(known))
def test_schema_with_types_is_never_any(schema: dict[str, Any]) -> None:
    without_comments = re.sub(r"//.*", "", typescript(schema))

    assert not re.search(r"\bany\b", without_comments)


@given(whatever)
def test_whatever_a_client_sends_has_a_type(schema: Any) -> None:
    typescript(schema).encode()
