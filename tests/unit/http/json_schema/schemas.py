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

_few = st.integers(0, 2)
_limit = st.integers(-3, 8)


def _some(type_: str | None, **words: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    named = {} if type_ is None else {"type": type_}
    return st.fixed_dictionaries({}, optional=words).map(lambda found: {**named, **found})


_limited = st.one_of(
    _some(
        "integer",
        minimum=_limit,
        maximum=_limit,
        exclusiveMinimum=_limit,
        exclusiveMaximum=_limit,
        multipleOf=st.sampled_from([2, 3, 0.5]),
    ),
    _some("number", minimum=_limit, maximum=_limit, multipleOf=st.sampled_from([2, 0.5])),
    _some(
        "string",
        minLength=_few,
        maxLength=st.integers(0, 3),
        pattern=st.sampled_from(["^a+$", "^(?!a)", "b", "^[ab]{2}$"]),
        format=st.sampled_from(["date", "uuid", "phone"]),
    ),
    st.sampled_from(
        [
            *[
                {"const": "a"},
                {"enum": ["a", 1, None]},
                {"type": "string", "enum": ["a", 1]},
                {"type": "null"},
                {},
                True,
            ],
            *[
                {"minimum": 3},
                {"pattern": "a"},
                {"type": ["integer", "null"], "minimum": 2},
                {"not": {"type": "string"}},
            ],
            {"type": ["string", "array"], "maxLength": 1, "maxItems": 1},
        ]
    ),
)


def _holders(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    either = st.one_of(st.booleans(), inner)
    objects = _some(
        "object",
        properties=st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
        required=st.lists(st.sampled_from("ab"), max_size=2, unique=True),
        additionalProperties=either,
        unevaluatedProperties=either,
        minProperties=_few,
        maxProperties=_few,
        patternProperties=st.dictionaries(st.sampled_from(["^a", "b$"]), inner, max_size=2),
        propertyNames=st.sampled_from([{"pattern": "^a$"}, {"maxLength": 1}, {"enum": ["a"]}]),
        dependentRequired=st.just({"a": ["b"]}),
    )
    arrays = _some(
        "array",
        items=either,
        prefixItems=st.lists(inner, min_size=1, max_size=2),
        unevaluatedItems=either,
        minItems=_few,
        maxItems=_few,
        uniqueItems=st.booleans(),
        contains=inner,
    )
    combined = st.builds(
        lambda word, listed, beside: {**beside, word: listed},
        st.sampled_from(["anyOf", "oneOf", "allOf"]),
        st.lists(inner, min_size=1, max_size=2),
        st.sampled_from([{}, {"type": "object"}, {"type": "string"}, {"maximum": 3}]),
    )
    typed = st.one_of(objects, arrays)
    untyped = typed.map(lambda schema: {word: value for word, value in schema.items() if word != "type"})
    return st.one_of(typed, untyped, combined)


limited = st.recursive(_limited, _holders, max_leaves=5)
"""Schemas with the words of each type in many combinations, some of which no grammar enforces."""

values = st.recursive(
    st.one_of(
        st.integers(-4, 9), st.sampled_from([0.5, 1.5, 2.0, None, True, "", "a", "aa", "ab", "b", "abc", "2020-01-01"])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "b", "c", "ab"]), inner, max_size=3)
    ),
    max_leaves=6,
)
"""Small JSON, some of which is of such a schema."""
