"""Random JSON schemas, for property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

NAMES = st.sampled_from(["a", "b", "c", "name", "lat"])
DEFINITIONS = ("First", "Second", "Third")

_scalars = st.one_of(
    st.sampled_from(["string", "number", "integer", "boolean", "null"]).map(lambda kind: {"type": kind}),
    st.lists(st.sampled_from(["string", "integer", "null"]), min_size=1, max_size=3, unique=True).map(
        lambda kinds: {"type": kinds}
    ),
    st.sampled_from(["x", 1, 1.5, True, None]).map(lambda value: {"const": value}),
    st.lists(st.sampled_from(["x", "y", 1, None, False]), min_size=1, max_size=4).map(lambda values: {"enum": values}),
    st.just({"type": "string", "pattern": "^a+$", "description": "two\nlines", "default": "a"}),
    st.sampled_from(DEFINITIONS).map(lambda name: {"$ref": f"#/$defs/{name}"}),
    st.just({"$ref": "#"}),
)


def _objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    properties = st.dictionaries(NAMES, inner, max_size=4)
    return st.builds(
        lambda found, required: {"type": "object", "properties": found, "required": required},
        properties,
        st.lists(NAMES, max_size=2),
    )


def _larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        _objects(inner),
        inner.map(lambda items: {"type": "array", "items": items}),
        inner.map(lambda items: {"items": items}),
        inner.map(lambda values: {"type": "object", "additionalProperties": values}),
        several.map(lambda each: {"type": "array", "prefixItems": each}),
        st.builds(lambda word, each: {word: each}, st.sampled_from(["anyOf", "oneOf", "allOf"]), several),
        st.builds(lambda each, note: {**each, "description": note, "title": note}, inner, st.text(max_size=8)),
        st.builds(lambda each: {**each, "nullable": True}, inner),
    )


known = st.recursive(_scalars, _larger, max_leaves=12)
"""Schemas of which each part has a type."""


def with_definitions(schema: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """The schema of a tool's parameters, whose definitions refer to each other as they like."""
    definitions = st.fixed_dictionaries(dict.fromkeys(DEFINITIONS, _objects(schema)))
    return st.builds(lambda found, named: {**found, "$defs": named}, _objects(schema), definitions)


WORDS = [
    *["type", "properties", "items", "required", "anyOf", "oneOf", "allOf", "$ref", "enum", "const", "prefixItems"],
    *["additionalProperties", "patternProperties", "description", "default", "examples", "title", "nullable", "not"],
    *["pattern", "format", "minimum", "maximum", "minLength", "maxLength", "minItems", "multipleOf", "$defs"],
]

whatever = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.sampled_from(["#", "#/$defs/a", "object"])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(WORDS),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=20,
)
"""JSON that has the words of a schema in any place."""
