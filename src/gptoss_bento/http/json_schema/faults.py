"""What is wrong with a schema, and where. Pure.

Source: JSON Schema 2020-12; draft 4's forms of `items`, `exclusiveMinimum` and `exclusiveMaximum` are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, NamedTuple, TypeGuard

from gptoss_bento.http.json_schema.keywords import TYPES, parts
from gptoss_bento.http.json_schema.references import is_local, target
from gptoss_bento.http.json_schema.regex import Flaw, flaw_of
from gptoss_bento.strict_json import shown, shown_name

DEEPEST = 64
"""How many objects and arrays may be within each other. Source: vLLM's MAX_STRUCTURED_OUTPUT_JSON_NESTING."""


class Severity(Enum):
    """What becomes of a schema with a fault."""

    INVALID = "it means nothing"
    NO_GRAMMAR = "no grammar can be made of it"
    NOT_ENFORCED = "a grammar is made, without this"


class Fault(NamedTuple):
    """One thing that is wrong.

    Attributes:
        place: within the schema: `properties.a.pattern`; empty for the schema itself.
        reason: the rest of a sentence that begins with the place.
    """

    place: str
    reason: str
    severity: Severity = Severity.INVALID


def faults(schema: Any) -> Iterator[Fault]:
    """What is wrong with the shape of a schema, its references, its limits and its patterns."""
    if depth_exceeds(schema, DEEPEST):
        yield Fault("", f"must have at most {DEEPEST} levels of objects and arrays", Severity.NO_GRAMMAR)
        return
    if schema is False:
        yield Fault("", "accepts no value")
    yield from _faults(schema, "", schema)


def depth_exceeds(value: Any, levels: int) -> bool:
    """Whether objects and arrays are within each other more often than that."""
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return levels < 0 or any(depth_exceeds(each, levels - 1) for each in inner if isinstance(each, dict | list))


def _faults(schema: Any, place: str, root: Any) -> Iterator[Fault]:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, Mapping):
        yield Fault(place, f"must be a schema, which is an object or a boolean, got {shown(schema)}")
        return
    for check in (_type, _containers, _lists, _limits, _ranges, _pattern, _reference):
        for fault in check(schema, root):
            yield fault._replace(place=joined(place, fault.place))
    for name, part in parts(schema):
        yield from _faults(part, joined(place, name), root)


def joined(place: str, name: str) -> str:
    """A place within a place."""
    return f"{place}{'' if not place or not name or name.startswith('[') else '.'}{name}"


def _type(schema: Mapping[str, Any], _: Any) -> Iterator[Fault]:
    given = schema.get("type", "object")
    kinds = given if isinstance(given, list) else [given]
    if not kinds or not all(isinstance(kind, str) and kind in TYPES for kind in kinds):
        right = ", ".join(f'"{kind}"' for kind in TYPES)
        yield Fault("type", f"must be one or a list of {right}, got {shown(given)}")


_OF_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")


def _containers(schema: Mapping[str, Any], _: Any) -> Iterator[Fault]:
    for name in _OF_SCHEMAS:
        if name in schema and not isinstance(schema[name], Mapping):
            yield Fault(name, f"must be an object of schemas, got {shown(schema[name])}")
    for name in ("anyOf", "oneOf", "allOf", "prefixItems"):
        if name in schema and not (isinstance(schema[name], list) and schema[name]):
            yield Fault(name, f"must be a list of at least one schema, got {shown(schema[name])}")
        elif (
            name in schema
            and name != "prefixItems"
            and (all if name != "allOf" else any)(part is False for part in schema[name])
        ):
            yield Fault(name, "accepts no value")
    if isinstance(schema.get("items"), list):
        yield Fault("items", "must be a schema: a list of them is `prefixItems` now", Severity.NO_GRAMMAR)


def _lists(schema: Mapping[str, Any], _: Any) -> Iterator[Fault]:
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        yield Fault("required", f"must be a list of names, got {shown(required)}")
    if "enum" in schema and not (isinstance(schema["enum"], list) and schema["enum"]):
        yield Fault("enum", f"must be a list of at least one value, got {shown(schema['enum'])}")


_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_COUNTS_ALL = (*_COUNTS, "minContains", "maxContains")
LARGEST = 2**63 - 1
"""The largest number that a grammar has of integers and counts."""


def _limits(schema: Mapping[str, Any], _: Any) -> Iterator[Fault]:
    is_integer = "integer" in str(schema.get("type"))
    for name in _NUMBERS:
        if name in schema and (fault := _wrong_number(name, schema[name], is_integer)):
            yield fault
    for name in _COUNTS_ALL:
        value = schema.get(name, 0)
        if not _is_number(value) or value != int(value) or value < 0:
            yield Fault(name, f"must be an integer from 0, got {shown(value)}")
        elif value > LARGEST:
            yield Fault(name, f"must be within 64 bits, got {shown(value)}", Severity.NO_GRAMMAR)


def _wrong_number(name: str, value: Any, is_integer: bool) -> Fault | None:
    if name.startswith("exclusive") and isinstance(value, bool):
        return Fault(name, "must be a number: a boolean is draft 4", Severity.NO_GRAMMAR)
    if not _is_number(value):
        return Fault(name, f"must be a number, got {shown(value)}")
    if name == "multipleOf" and value <= 0:
        return Fault(name, f"must be above 0, got {shown(value)}")
    if abs(value) > LARGEST and is_integer:
        return Fault(name, f"must be within 64 bits, got {shown(value)}", Severity.NO_GRAMMAR)
    return None


def _ranges(schema: Mapping[str, Any], _: Any) -> Iterator[Fault]:
    pairs = [("minimum", "maximum"), *zip(_COUNTS[::2], _COUNTS[1::2], strict=True)]
    for lower, upper in pairs:
        least, most = schema.get(lower), schema.get(upper)
        if _is_number(least) and _is_number(most) and least > most:
            yield Fault(lower, f"{shown(least)} is above {upper} {shown(most)}: no value fits")
    for lower, upper in (
        ("minimum", "exclusiveMaximum"),
        ("exclusiveMinimum", "maximum"),
        ("exclusiveMinimum", "exclusiveMaximum"),
    ):
        least, most = schema.get(lower), schema.get(upper)
        if _is_number(least) and _is_number(most) and least >= most:
            yield Fault(lower, f"{shown(least)} is not below {upper} {shown(most)}: no value fits")
    yield from _whole(schema)
    yield from _closed(schema)


def _closed(schema: Mapping[str, Any]) -> Iterator[Fault]:
    """Objects and lists that must have more than they may."""
    required, most = schema.get("required"), schema.get("maxProperties")
    if isinstance(required, list) and _is_number(most) and len(set(map(str, required))) > most:
        yield Fault("required", f"has more names than maxProperties {shown(most)}: no value fits")
    for least, held, *closers in (
        ("minProperties", "properties", "additionalProperties", "unevaluatedProperties"),
        ("minItems", "prefixItems", "items", "unevaluatedItems"),
    ):
        listed, count = schema.get(held, ()), schema.get(least)
        known = isinstance(listed, Mapping | list | tuple) and not schema.get("patternProperties")
        if known and _is_number(count) and count > len(listed) and any(schema.get(each) is False for each in closers):
            yield Fault(least, f"{shown(count)} is more than may be there: no value fits")


def _whole(schema: Mapping[str, Any]) -> Iterator[Fault]:
    """Of integers only: limits between two of them, and ranges without one."""
    kinds = schema.get("type")
    if kinds != "integer" and not (isinstance(kinds, list) and "integer" in kinds and "number" not in kinds):
        return
    for name in _NUMBERS:
        value = schema.get(name)
        if isinstance(value, float) and value != int(value):
            yield Fault(name, f"must be an integer as the values are, got {shown(value)}", Severity.NO_GRAMMAR)
    least, most = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if _is_number(least) and _is_number(most) and most - 1 == least:
        yield Fault("exclusiveMinimum", f"{shown(least)} and exclusiveMaximum {shown(most)} leave no integer")


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


_SEVERITY = {Flaw.WRONG: Severity.INVALID, Flaw.UNKNOWN: Severity.NO_GRAMMAR, Flaw.IGNORED: Severity.NOT_ENFORCED}


def _pattern(schema: Mapping[str, Any], _: Any) -> Iterator[Fault]:
    named = schema.get("patternProperties")
    if "pattern" in schema and not isinstance(schema["pattern"], str):
        yield Fault("pattern", f"must be a string, got {shown(schema['pattern'])}")
    elif "pattern" in schema and (flaw := flaw_of(schema["pattern"])):
        yield Fault("pattern", flaw.reason, _SEVERITY[flaw.kind])
    for pattern in named if isinstance(named, Mapping) else ():
        if flaw := flaw_of(pattern):
            yield Fault(f"patternProperties.{shown_name(pattern)}", flaw.reason, _SEVERITY[flaw.kind])


def _reference(schema: Mapping[str, Any], root: Any) -> Iterator[Fault]:
    if "$ref" not in schema:
        return
    reference = schema["$ref"]
    if not isinstance(reference, str):
        yield Fault("$ref", f"must be a string, got {shown(reference)}")
    elif not is_local(reference):
        yield Fault(
            "$ref", f"must begin with # and name a place in this schema, got {shown(reference)}", Severity.NO_GRAMMAR
        )
    elif reason := dead_end(root, reference):
        yield Fault("$ref", f"{shown_name(reference)} {reason}")


def dead_end(root: Any, reference: str) -> str:
    """Why a chain of references leads to no type; empty if it does."""
    seen: set[str] = set()
    found: Any = {"$ref": reference}
    while isinstance(found, Mapping) and is_local(next_reference := found.get("$ref")):
        if next_reference in seen:
            return "refers to itself"
        seen.add(next_reference)
        try:
            found = target(root, next_reference)
        except LookupError:
            return (
                "does not exist"
                if next_reference == reference
                else f"refers to {shown_name(next_reference)}, which does not exist"
            )
    return "" if isinstance(found, Mapping | bool) else "is not a schema"
