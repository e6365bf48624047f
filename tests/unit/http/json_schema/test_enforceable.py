from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from gptoss_bento.http.json_schema.enforceable import enforceable
from gptoss_bento.http.json_schema.faults import Severity, faults
from tests.unit.http.json_schema.schemas import known, whatever, with_definitions


@pytest.mark.parametrize(
    ("schema", "kept"),
    [
        ({"type": "string", "title": "x", "description": "y", "default": "z"}, {"type": "string"}),
        ({"type": "string", "pattern": r"\bword"}, {"type": "string"}),
        ({"type": "string", "pattern": "^a$"}, {"type": "string", "pattern": "^a$"}),
        ({"$ref": "https://example.com/place.json"}, {}),
        ({"items": [{"type": "string"}]}, {"prefixItems": [{"type": "string"}]}),
        ({"type": "integer", "minimum": 5, "exclusiveMinimum": True}, {"type": "integer", "exclusiveMinimum": 5}),
        ({"type": "integer", "minimum": 5, "exclusiveMinimum": False}, {"type": "integer", "minimum": 5}),
        ({"type": "integer", "minimum": 1.5}, {"type": "integer", "minimum": 2}),
        ({"type": "integer", "exclusiveMaximum": 1.5}, {"type": "integer", "exclusiveMaximum": 2}),
        ({"type": "integer", "maximum": 10**30}, {"type": "integer"}),
        ({"type": "array", "minItems": 1}, {"type": "array", "minItems": 1, "items": True}),
        ({"type": "object", "minProperties": 1}, {"type": "object", "minProperties": 1, "additionalProperties": True}),
        ({"properties": {"a": False, "b": {}}}, {"properties": {"b": {}}}),
        ({"anyOf": [False, {"type": "null"}]}, {"anyOf": [{"type": "null"}]}),
        (
            {"properties": {"a": {}}, "required": ["b"], "additionalProperties": {"type": "null"}},
            {
                "properties": {"a": {}, "b": {"type": "null"}},
                "required": ["b"],
                "additionalProperties": {"type": "null"},
            },
        ),
        (
            {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "null"}}},
            {"$ref": "#/$defs/d0", "$defs": {"d0": {"type": "null"}}},
        ),
        ({"properties": {"a": {"$ref": "#"}}}, {"properties": {"a": {"$ref": "#"}}}),
        (True, True),
    ],
)
def test_schema_becomes_what_a_grammar_is_made_of(schema: Any, kept: Any) -> None:
    assert enforceable(schema) == kept


def test_deep_schema_is_anything() -> None:
    schema: Any = {}
    for _ in range(100):
        schema = {"items": schema}

    assert enforceable(schema) is True


@given(with_definitions(known))
def test_schema_that_is_rewritten_has_no_faults(schema: dict[str, Any]) -> None:
    if not any(fault.severity is Severity.INVALID for fault in faults(schema)):
        assert list(faults(enforceable(schema))) == []


@given(whatever)
def test_whatever_has_a_grammar(schema: Any) -> None:
    if not any(fault.severity is Severity.INVALID for fault in faults(schema)):
        written = enforceable(schema)

        assert [fault for fault in faults(written) if fault.severity is not Severity.NOT_ENFORCED] == []
        assert enforceable(written) == written
