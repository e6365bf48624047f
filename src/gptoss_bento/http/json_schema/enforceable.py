"""A schema as the engine's grammar compiler takes it: as much of it as there is a grammar for. Pure.

Of a schema without faults nothing is lost that could be enforced (`enforcement.py` names what cannot).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gptoss_bento.http.json_schema.enforcement import ASSERTIONS, kinds_of
from gptoss_bento.http.json_schema.faults import DEEPEST, LARGEST, dead_end, depth_exceeds
from gptoss_bento.http.json_schema.keywords import ONE, SEVERAL
from gptoss_bento.http.json_schema.references import is_local, target
from gptoss_bento.http.json_schema.regex import Flaw, flaw_of

_EXCLUSIVE = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}
_LOWER = ("minimum", "exclusiveMinimum")
_CLOSED_BY = {
    "object": (
        ("properties", "patternProperties", "additionalProperties", "unevaluatedProperties"),
        "additionalProperties",
    ),
    "array": (("prefixItems", "items", "unevaluatedItems"), "items"),
}


def enforceable(schema: Any) -> Any:
    """The schema without what no grammar can be made of, and without notes.

    xgrammar finds no escapes in `$ref`, makes closed lists and objects of those that say nothing of their items, and
    takes no `false`; these are written in other words.
    """
    if isinstance(schema, bool) or not isinstance(schema, Mapping) or depth_exceeds(schema, DEEPEST):
        return True
    rewriter = _Rewriter(schema)
    rewritten = rewriter.part(schema)
    definitions = rewriter.definitions()
    return {**rewritten, "$defs": definitions} if definitions else rewritten


class _Rewriter:
    """Rewrites the parts of one schema.

    Args:
        root: the whole, into which its `$ref` point.
    """

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._names: dict[str, str] = {}

    def definitions(self) -> dict[str, Any]:
        """What the rewritten parts refer to."""
        done: dict[str, Any] = {}
        while left := [reference for reference, name in self._names.items() if name not in done]:
            done |= {self._names[reference]: self.part(target(self._root, reference)) for reference in left}
        return done

    def part(self, schema: Any) -> Any:
        """One schema; `false` stays as it is."""
        if not isinstance(schema, Mapping):
            return schema if isinstance(schema, bool) else {}
        if "$ref" in schema:
            return self._reference(schema)
        kept = {word: value for word, value in schema.items() if word in ASSERTIONS}
        for step in (self._with_parts, _with_patterns, _with_limits, _with_required, _open):
            kept = step(kept)
        return kept

    def _reference(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        reference = schema["$ref"]
        if not is_local(reference) or dead_end(self._root, reference):
            return {}
        if reference != "#":
            reference = "#/$defs/" + self._names.setdefault(reference, f"d{len(self._names)}")
        return {"$ref": reference}

    def _with_parts(self, schema: dict[str, Any]) -> dict[str, Any]:
        changed = dict(schema)
        for word in SEVERAL:
            if isinstance(listed := changed.get(word), list):
                changed[word] = [self.part(each) for each in listed]
        for word in ONE:
            if word in changed and not isinstance(changed[word], list):
                changed[word] = self.part(changed[word])
        for word in ("properties", "patternProperties"):
            if isinstance(named := changed.get(word), Mapping):
                changed[word] = {name: self.part(each) for name, each in named.items()}
        return _without_false(_with_tuples(changed))


def _with_tuples(schema: dict[str, Any]) -> dict[str, Any]:
    """Draft 4's list of items by its new name."""
    if not isinstance(schema.get("items"), list):
        return schema
    first = schema["items"]
    return {**_but(schema, "items"), **({"prefixItems": first} if first else {})}


def _without_false(schema: dict[str, Any]) -> dict[str, Any]:
    """Parts that take no value, left out where that says the same."""
    changed = dict(schema)
    for word in ("anyOf", "oneOf"):
        if word in changed:
            changed[word] = [each for each in changed[word] if each is not False]
    for word in ("properties", "patternProperties"):
        if word in changed:
            changed[word] = {name: each for name, each in changed[word].items() if each is not False}
    first = [{} if each is True else each for each in changed.get("prefixItems", [])]
    if False in first:  # nothing from there on
        first, changed["items"] = first[: first.index(False)], False
    if "prefixItems" in changed:
        changed["prefixItems"] = first[: changed.get("maxItems", len(first))]
    return changed if changed.get("prefixItems", True) else _but(changed, "prefixItems")


def _but(schema: dict[str, Any], word: str) -> dict[str, Any]:
    return {each: value for each, value in schema.items() if each != word}


def _with_patterns(schema: dict[str, Any]) -> dict[str, Any]:
    changed = dict(schema)
    if not _compiles(changed.get("pattern", "")):
        del changed["pattern"]
    if "patternProperties" in changed and not (
        changed["patternProperties"] and all(map(_compiles, changed["patternProperties"]))
    ):
        del changed["patternProperties"]
    return changed


def _compiles(pattern: Any) -> bool:
    flaw = flaw_of(pattern) if isinstance(pattern, str) else None
    return isinstance(pattern, str) and (flaw is None or flaw.kind is Flaw.IGNORED)


def _with_limits(schema: dict[str, Any]) -> dict[str, Any]:
    changed = dict(schema)
    for word, plain in _EXCLUSIVE.items():  # draft 4 has a boolean there
        if isinstance(exclusive := changed.get(word), bool):
            del changed[word]
            if exclusive and plain in changed:
                changed[word] = changed.pop(plain)
    for word in ("minimum", "maximum", *_EXCLUSIVE):
        if isinstance(value := changed.get(word), float) and schema.get("type") == "integer" and math.isfinite(value):
            changed[word] = math.ceil(value) if (word in _LOWER) == (word in _EXCLUSIVE.values()) else math.floor(value)
    large = [word for word, value in changed.items() if isinstance(value, int | float) and abs(value) > LARGEST]
    return {word: value for word, value in changed.items() if word not in large}


def _with_required(schema: dict[str, Any]) -> dict[str, Any]:
    """What is required and not declared, as a property: xgrammar looks among these alone."""
    declared, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    required = schema.get("required", ()) if "object" in kinds_of(schema) else ()
    missing = [name for name in required if name not in declared]
    if not missing or others is False or "patternProperties" in schema:
        return schema
    opened = {} if declared else {"additionalProperties": others}
    return {**schema, **opened, "properties": {**declared, **dict.fromkeys(missing, others)}}


def _kind_of(schema: Mapping[str, Any], kind: str) -> bool:
    kinds = schema.get("type")
    return kind in kinds if isinstance(kinds, list) else kinds == kind


def _open(schema: dict[str, Any]) -> dict[str, Any]:
    """Objects and lists that say nothing of what they hold may hold anything, and those that need more may have it."""
    if schema.keys() == {"type"}:  # xgrammar takes this as open
        return schema
    changed = dict(schema)
    for kind, (words, opener) in _CLOSED_BY.items():
        if _kind_of(changed, kind) and not any(word in changed for word in words):
            changed[opener] = True
    for least, held, *openers in (
        ("minProperties", "properties", "additionalProperties", "unevaluatedProperties"),
        ("minItems", "prefixItems", "items", "unevaluatedItems"),
    ):
        needs_more = held in changed and changed.get(least, 0) > len(changed[held])
        if needs_more and not any(opener in changed for opener in openers):
            changed[openers[0]] = True
    return changed
