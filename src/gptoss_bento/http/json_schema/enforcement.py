"""What the engine's grammar compiler passes over in a schema, though it makes a grammar. Pure.

xgrammar 0.2.8 goes by one word of each schema, the first of `$ref`, `const`, `enum`, `anyOf`, `oneOf`, `allOf`, `type`;
the words beside it count only with `type`, and there not in every combination. Source: its sources, and
`tests/contract/test_schemas.py`, which tries each row with a value that breaks it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from gptoss_bento.http.json_schema.faults import Fault, Severity, joined
from gptoss_bento.http.json_schema.keywords import parts
from gptoss_bento.http.json_schema.references import is_local, target

_DECIDING = ("$ref", "const", "enum", "anyOf", "oneOf", "allOf")
_NUMBER = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_STRING = ("pattern", "format", "minLength", "maxLength")
_ARRAY = ("items", "prefixItems", "unevaluatedItems", "minItems", "maxItems", "uniqueItems", "contains")
_OBJECT = (
    *("properties", "patternProperties", "additionalProperties", "unevaluatedProperties", "propertyNames"),
    *("required", "minProperties", "maxProperties"),
)
_OF_TYPE = {"integer": _NUMBER, "number": _NUMBER, "string": _STRING, "array": _ARRAY, "object": _OBJECT}
ASSERTIONS = frozenset((*_DECIDING, "type", *_NUMBER, *_STRING, *_ARRAY, *_OBJECT))
"""The words that a grammar can be made of."""
# These have no grammar in any combination.
_NEVER = ("not", "if", "dependentRequired", "dependentSchemas", "dependencies", "$dynamicRef", "$recursiveRef")
# The words by which xgrammar guesses the type of a schema without one.
_GUESSED = {
    "object": ("properties", "additionalProperties", "unevaluatedProperties"),
    "array": ("items", "prefixItems", "unevaluatedItems"),
}
_FORMATS = frozenset(
    [
        *["date", "date-time", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"],
        *["uri-reference", "uri-template", "json-pointer", "relative-json-pointer"],
    ]
)
# Notes for people and other programs, of which a JSON string or number of any kind is one.
_NOTES = frozenset(
    [
        *["password", "binary", "path", "file-path", "directory-path", "json-string"],
        *["int32", "int64", "uint32", "uint64", "float", "double", "decimal"],
    ]
)


def unenforced(schema: Any) -> Iterator[Fault]:
    """The words of a schema that a grammar of it would not hold an answer to.

    Args:
        schema: one without other faults.
    """
    yield from _within(schema, "", schema)


def _within(schema: Any, place: str, root: Any) -> Iterator[Fault]:
    if not isinstance(schema, Mapping):
        return
    for word, reason in _passed_over(schema, root):
        yield Fault(joined(place, word), reason, Severity.NOT_ENFORCED)
    for name, part in parts(schema):
        if name not in _NEVER:
            named = {"type": "string", **part} if name == "propertyNames" and isinstance(part, Mapping) else part
            yield from _within(named, joined(place, name), root)


def _passed_over(schema: Mapping[str, Any], root: Any) -> Iterator[tuple[str, str]]:
    yield from ((word, "cannot be enforced") for word in _NEVER if word in schema)
    decides = next((word for word in _DECIDING if word in schema), None)
    if decides:
        beside = [word for word in schema if word in ASSERTIONS and word != decides]
        beside = [word for word in beside if word != "type" or not _repeats(schema, decides, root)]
        yield from ((word, f"cannot be enforced beside {decides}") for word in beside)
        yield from _alternatives(schema, decides, root)
        return
    kinds = kinds_of(schema)
    if not kinds:
        yield from ((word, "cannot be enforced without a type") for word in schema if word in ASSERTIONS)
    for kind in kinds:
        yield from _COMBINATIONS.get(kind, _nothing)(schema)


def kinds_of(schema: Mapping[str, Any]) -> list[str]:
    """The types that a schema names, or else the one that xgrammar guesses."""
    if (given := schema.get("type")) is not None:
        return list(dict.fromkeys(given)) if isinstance(given, list) else [given]
    return [kind for kind, words in _GUESSED.items() if any(word in schema for word in words)][:1]


def _repeats(schema: Mapping[str, Any], decides: str, root: Any) -> bool:
    """Whether `type` says only what the deciding word says, too."""
    allowed = set(kinds_of(schema))
    if decides in ("const", "enum"):
        values = [schema["const"]] if decides == "const" else schema["enum"]
        return all(_types_of(value) & allowed for value in values)
    branches = [{"$ref": schema["$ref"]}] if decides == "$ref" else schema[decides]
    return all((found := _types(branch, root)) and found <= allowed for branch in branches)


def _types_of(value: Any) -> set[str]:
    """The types that a value of JSON has."""
    if isinstance(value, bool):
        return {"boolean"}
    if isinstance(value, int | float):
        return {"number", "integer"} if value == int(value) else {"number"}
    names = {dict: "object", list: "array", str: "string", type(None): "null"}
    return {names[type(value)]}


def _types(schema: Any, root: Any) -> set[str]:
    """The types that a schema names; empty if it names none."""
    schema = _resolved(schema, root)
    if "const" in schema or "enum" in schema:
        values = [schema["const"]] if "const" in schema else schema["enum"]
        return {kind for value in values for kind in _types_of(value)}
    return set(kinds_of(schema))


def _names_type(schema: Any, root: Any) -> bool:
    return not _resolved(schema, root).keys().isdisjoint(("type", "const", "enum"))


def _resolved(schema: Any, root: Any) -> Mapping[str, Any]:
    for _ in range(20):  # faults.py has refused circles
        if not isinstance(schema, Mapping) or not is_local(reference := schema.get("$ref")):
            break
        schema = target(root, reference)
    return schema if isinstance(schema, Mapping) else {}


def _alternatives(schema: Mapping[str, Any], decides: str, root: Any) -> Iterator[tuple[str, str]]:
    if decides == "allOf" and len(schema["allOf"]) > 1:
        yield "allOf", "of several schemas cannot be enforced: write them as one"
    if decides == "oneOf" and not all(_exclude(*pair, root) for pair in combinations(schema["oneOf"], 2)):
        yield "oneOf", "is enforced as anyOf, and its schemas can hold together: use anyOf"


def _exclude(one: Any, other: Any, root: Any) -> bool:
    """Whether no value can be of both schemas, as far as can be seen."""
    first, second = (_types(each, root) if _names_type(each, root) else set() for each in (one, other))
    if first and second and not _widened(first) & _widened(second):
        return True
    one, other = _resolved(one, root), _resolved(other, root)
    if (literals := _literals(one)) and (others := _literals(other)):
        return not literals & others
    return any(
        (ones := _literals(_tag(one, name, root)))
        and (those := _literals(_tag(other, name, root)))
        and not ones & those
        for name in _required(one) & _required(other)
    )


def _widened(kinds: set[str]) -> set[str]:
    return kinds | {"number"} if "integer" in kinds else kinds


def _literals(schema: Mapping[str, Any]) -> set[str]:
    values = [schema["const"]] if "const" in schema else schema.get("enum", [])
    return {repr(value) for value in values}


def _required(schema: Mapping[str, Any]) -> set[str]:
    return set(schema.get("required", ()))


def _tag(schema: Mapping[str, Any], name: str, root: Any) -> Mapping[str, Any]:
    return _resolved(schema.get("properties", {}).get(name), root)


def _nothing(_: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    return iter(())


def _number(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "multipleOf" not in schema:
        return
    if "number" in kinds_of(schema) or schema["multipleOf"] != int(schema["multipleOf"]):
        yield "multipleOf", "can be enforced of integers alone"
    elif any(word in schema for word in _NUMBER[:-1]):
        yield "multipleOf", "cannot be enforced beside limits"


def _string(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    form = schema.get("format")
    form = None if form in _NOTES else form
    decides = "format" if form is not None else "pattern" if "pattern" in schema else None
    if form is not None and form not in _FORMATS:
        yield "format", f"{form!r} cannot be enforced; these can: {', '.join(sorted(_FORMATS))}"
    if decides == "format" and "pattern" in schema:
        yield "pattern", "cannot be enforced beside format"
    if decides:
        yield from (
            (word, f"cannot be enforced beside {decides}") for word in ("minLength", "maxLength") if word in schema
        )


def _array(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if schema.get("uniqueItems") is True:
        yield "uniqueItems", "cannot be enforced"
    if "contains" in schema:
        yield "contains", "cannot be enforced"


def _object(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    declared, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    closed = schema.get("additionalProperties") is False or patterns  # else enforceable.py declares them
    for number, name in enumerate(schema.get("required", ())):
        if closed and name not in declared:
            yield f"required[{number}]", f"{name!r} cannot be enforced: it is not among properties"
    if patterns and declared:
        yield "patternProperties", "cannot be enforced beside properties"
    elif len(patterns) > 1:
        yield "patternProperties", "of several patterns cannot be enforced"
    if "propertyNames" in schema and (declared or patterns or schema.get("unevaluatedProperties", True) is not True):
        yield "propertyNames", "can be enforced beside additionalProperties alone"


_COMBINATIONS = {"integer": _number, "number": _number, "string": _string, "array": _array, "object": _object}
