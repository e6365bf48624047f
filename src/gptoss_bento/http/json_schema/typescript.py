"""A schema as the TypeScript-like type that GPT-OSS reads of a tool's parameters. Pure.

openai-harmony writes types, enums of strings, nested objects, arrays and `oneOf`; `any` for all else: `$ref`, `anyOf`,
`allOf`, `const`, other enums, null, tuples, maps. Here these are written too. What that library knows looks as it
writes it (source: openai-harmony, `json_schema_to_typescript`), for that is what the model was trained on; except that
each line of a comment begins with `//`, that unions in arrays have parentheses, and that examples are JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from gptoss_bento.http.json_schema.references import is_local, steps, target
from gptoss_bento.strict_json import dumps, encodable

_MOST_TYPES = 5000  # definitions that use each other twice grow as 2 to the power of their number
_DEEPEST = 40
_ANY = "any"
_WORDS = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "null": "null",
    "object": "object",
    "array": "array",
}
# What a schema without a type is about, by the first of these that it has.
_SIGNS = {
    "object": ("properties", "additionalProperties", "patternProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("pattern", "format", "minLength", "maxLength"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
_INDENT = "    "


class _Type(NamedTuple):
    """A type as text; a union needs parentheses where something is put behind it."""

    text: str
    is_union: bool = False

    @property
    def closed(self) -> str:
        return f"({self.text})" if self.is_union else self.text


_UNKNOWN = _Type(_ANY)


def typescript(schema: Any) -> str:
    """The type of a tool's parameters.

    A type that contains itself is written once, and by its name within. Beyond 40 levels, or 5,000 types, only the
    kind of a value is written.

    Args:
        schema: any JSON; what is no schema is `any`.
    """
    writer = _Writer(schema)
    written = writer.whole().text
    above = _comment(_text(schema, "description"), "") if written.startswith("{") else ""
    return _encodable(above + written)


class _Writer:
    """Writes the types of one schema.

    Args:
        root: the whole, into which its `$ref` point.
    """

    def __init__(self, root: Any) -> None:
        self._root = root
        self._open = ["#"]  # the references within which a type is being written
        self._recursive: set[str] = set()
        self._written = 0
        self._level = 0

    def whole(self) -> _Type:
        """The type of all of it."""
        return self._said(self.type_of(self._root, ""), "#", "")

    def type_of(self, schema: Any, indent: str) -> _Type:
        """The type of a part of the schema, whose further lines begin with this indent."""
        if schema is False:
            return _Type("never")
        if not isinstance(schema, Mapping):
            return _UNKNOWN
        self._written += 1
        if self._written > _MOST_TYPES or self._level > _DEEPEST:
            return _Type(_shallow(schema))
        self._level += 1
        try:
            written = self._intersection(schema, indent)
        finally:
            self._level -= 1
        return _with_null(written) if schema.get("nullable") is True else written

    def _intersection(self, schema: Mapping[str, Any], indent: str) -> _Type:
        """All that a schema says about its value; TypeScript's `&` where that is more than one type."""
        literals = _literals(schema)
        if literals is not None:
            return literals
        branches = [each for each in _listed(schema, "allOf") if isinstance(each, Mapping)]
        if branches and (merged := self._merged(schema, branches)) is not None:
            return self._own(merged, indent)
        parts = [self._referred(schema, indent), self._own(schema, indent), self._union(schema, indent)]
        parts += [self.type_of(branch, indent) for branch in branches]
        return _joined([part for part in parts if part.text != _ANY], " & ")

    def _merged(self, schema: Mapping[str, Any], branches: list[Mapping[str, Any]]) -> Mapping[str, Any] | None:
        """`allOf` of plain objects as one object; None if they are something else."""
        objects = [self._resolved(each) for each in (*branches, _without(schema, "allOf"))]
        objects = [each for each in objects if _says_type(each)]
        if not objects or not all(_is_plain_object(each) for each in objects):
            return None
        properties = {name: value for each in objects for name, value in each.get("properties", {}).items()}
        required = [name for each in objects for name in _listed(each, "required")]
        return {**objects[0], "properties": properties, "required": required}

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a branch is, if it is one reference and no more."""
        reference = schema.get("$ref")
        if not is_local(reference) or reference in self._open or _says_type(_without(schema, "$ref")):
            return schema
        found = self._target(reference)
        return found if isinstance(found, Mapping) else schema

    def _referred(self, schema: Mapping[str, Any], indent: str) -> _Type:
        reference = schema.get("$ref")
        if not is_local(reference):
            return _UNKNOWN
        if reference in self._open:
            self._recursive.add(reference)
            return _Type(self._name(reference))
        self._open.append(reference)
        try:
            written = self.type_of(self._target(reference), indent)
        finally:
            self._open.pop()
        return self._said(written, reference, indent)

    def _said(self, written: _Type, reference: str, indent: str) -> _Type:
        """A type that contains itself, with the name by which it does."""
        return _noted(written, f"this type is {self._name(reference)}" if reference in self._recursive else "", indent)

    def _target(self, reference: str) -> Any:
        try:
            return target(self._root, reference)
        except LookupError:
            return None

    def _name(self, reference: str) -> str:
        found = steps(reference)
        return found[-1] if found else _text(self._root, "title") or "parameters"

    def _union(self, schema: Mapping[str, Any], indent: str) -> _Type:
        variants = [*_listed(schema, "oneOf"), *_listed(schema, "anyOf")]
        types = [self.type_of(variant, f"{indent}   ") for variant in variants]
        if all(written.text == _ANY for written in types):  # `anyOf: [{"required": ["a"]}, …]` and the like
            return _UNKNOWN
        lines = [f"{written.text}{_remark(variant)}" for variant, written in zip(variants, types, strict=True)]
        if "oneOf" in schema or any("\n" in line or "//" in line for line in lines):
            return _Type("".join(f"\n{indent} | {line}" for line in dict.fromkeys(lines)), is_union=len(lines) > 1)
        return _joined(types, " | ")

    def _own(self, schema: Mapping[str, Any], indent: str) -> _Type:
        """By the type that a schema names, or by its other words."""
        kinds = schema.get("type")
        if kinds is None:
            return self._of_kind(_sign(schema), schema, indent)
        if not isinstance(kinds, list):
            return self._of_kind(kinds, schema, indent)
        return _joined([self._of_kind(kind, schema, indent) for kind in kinds], " | ")

    def _of_kind(self, kind: Any, schema: Mapping[str, Any], indent: str) -> _Type:
        if kind == "object":
            return self._object(schema, indent)
        if kind == "array":
            return self._array(schema, indent)
        return _Type(_WORDS.get(kind, _ANY) if isinstance(kind, str) else _ANY)

    def _array(self, schema: Mapping[str, Any], indent: str) -> _Type:
        items, first = schema.get("items"), _listed(schema, "prefixItems") or _listed(schema, "items")
        if first:
            places = [self.type_of(each, indent).text for each in first]
            rest = [f"...{self.type_of(items, indent).closed}[]"] if isinstance(items, Mapping) else []
            return _Type(f"[{', '.join(places + rest)}]")
        if not isinstance(items, Mapping):
            return _Type("Array<any>")
        described = _text({**self._annotations(items), **items}, "description")
        return _Type(f"{_noted(self.type_of(items, indent), described, indent).closed}[]")

    def _object(self, schema: Mapping[str, Any], indent: str) -> _Type:
        properties, required = _mapping(schema.get("properties")), _listed(schema, "required")
        lines = [
            self._property(f"{indent}{_name(name)}{'' if name in required else '?'}:", value, indent)
            for name, value in properties.items()
        ]
        lines += [f"{indent}[key: string]: {written.text},\n" for written in self._others(schema, indent)]
        return _Type("{\n" + "".join(lines) + indent + "}")

    def _others(self, schema: Mapping[str, Any], indent: str) -> list[_Type]:
        """The values of further properties, where something is known of them."""
        schemas = [*_mapping(schema.get("patternProperties")).values(), schema.get("additionalProperties")]
        types = [self.type_of(each, indent + _INDENT) for each in schemas if isinstance(each, Mapping)]
        known = [written for written in types if written.text != _ANY]
        return [_joined(known, " | ")] if known else []

    def _property(self, start: str, schema: Any, indent: str) -> str:
        written = self.type_of(schema, indent if "oneOf" in _mapping(schema) else indent + _INDENT)
        shown = {**self._annotations(schema), **_mapping(schema)}
        default = f"default: {_default(shown)}" if "default" in shown else ""
        above = _comments(shown, indent)
        if written.text.startswith("\n"):  # a union in lines of its own
            return f"{above}{_comment(default, indent)}{start}{written.text}\n{indent},\n"
        remark = f" // {default}" if default else ""
        return f"{above}{start} {written.text},{remark}\n"

    def _annotations(self, schema: Any) -> Mapping[str, Any]:
        """Title and description of what a property refers to."""
        reference = _mapping(schema).get("$ref")
        found = _mapping(self._target(reference)) if is_local(reference) else {}
        return {name: value for name, value in found.items() if name in ("title", "description")}


def _encodable(text: str) -> str:
    return text if encodable(text) else text.encode(errors="replace").decode()


def _joined(types: list[_Type], operator: str) -> _Type:
    """Several types as one, each once."""
    different = list(dict.fromkeys(types))
    if len(different) < 2:
        return different[0] if different else _UNKNOWN
    texts = [written.text if operator == " | " else written.closed for written in different]
    return _Type(operator.join(texts), is_union=True)


def _with_null(written: _Type) -> _Type:
    if "null" in written.text or written.text == _ANY:
        return written
    separator = "\n | " if written.text.startswith("\n") else " | "
    return _Type(f"{written.text}{separator}null", is_union=True)


def _noted(written: _Type, note: str, indent: str) -> _Type:
    """An object's type with a remark as its first line."""
    if not note or not written.text.startswith("{\n"):
        return written
    return written._replace(text="{\n" + _comment(note, indent) + written.text.removeprefix("{\n"))


def _literals(schema: Mapping[str, Any]) -> _Type | None:
    values = [schema["const"]] if "const" in schema else _listed(schema, "enum")
    if not values:
        return None
    return _joined([_Type(_literal(value)) for value in values], " | ")


def _literal(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) and value.isprintable() and '"' not in value else dumps(value)


def _shallow(schema: Mapping[str, Any]) -> str:
    kinds = schema.get("type")
    words = [
        _WORDS.get(kind, _ANY) for kind in (kinds if isinstance(kinds, list) else [kinds]) if isinstance(kind, str)
    ]
    return " | ".join(words) or _WORDS.get(_sign(schema) or "", _ANY)


def _sign(schema: Mapping[str, Any]) -> str | None:
    """The type that a schema without one is about."""
    says_otherwise = any(name in schema for name in ("$ref", "anyOf", "oneOf", "allOf"))
    for kind, names in _SIGNS.items():
        if any(name in schema for name in (names[:1] if says_otherwise else names)):
            return kind
    return None


_STRUCTURE = {"type", "properties", "additionalProperties", "patternProperties", "items", "prefixItems"}
_COMBINED = {"$ref", "anyOf", "oneOf", "allOf", "enum", "const"}


def _says_type(schema: Mapping[str, Any]) -> bool:
    return not schema.keys().isdisjoint(_STRUCTURE | _COMBINED)


def _is_plain_object(schema: Mapping[str, Any]) -> bool:
    return (schema.get("type", "object") == "object") and schema.keys().isdisjoint(_COMBINED | {"items", "prefixItems"})


def _without(schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {each: value for each, value in schema.items() if each != name}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _listed(schema: Mapping[str, Any], name: str) -> list[Any]:
    value = schema.get(name)
    return value if isinstance(value, list) else []


def _text(schema: Any, name: str) -> str:
    value = _mapping(schema).get(name)
    return value if isinstance(value, str) else ""


def _name(name: str) -> str:
    return name if name.isprintable() else dumps(name)


def _default(schema: Mapping[str, Any]) -> str:
    value = schema["default"]
    bare = isinstance(value, str) and value.isprintable() and "enum" in schema
    return str(value) if bare else _literal(value)


def _comments(schema: Mapping[str, Any], indent: str) -> str:
    """Title, description and examples, as lines above a property."""
    title, description = _text(schema, "title"), "" if "oneOf" in schema else _text(schema, "description")
    examples = _listed(schema, "examples")
    lines = [_comment(title, indent) + f"{indent}//\n"] if title else []
    lines.append(_comment(description, indent))
    if examples:
        lines.append(_comment("Examples:", indent))
        lines += [f"{indent}// - {_literal(example)}\n" for example in examples]
    return "".join(lines)


def _comment(text: str, indent: str) -> str:
    return "".join(f"{indent}// {line}\n" for line in text.splitlines())


def _remark(variant: Any) -> str:
    """What is said of one type of a union, behind it."""
    shown = _mapping(variant)
    words = [" ".join(_text(shown, "description").split())]
    words += [f"default: {_default(shown)}"] if "default" in shown else []
    remark = " ".join(word for word in words if word)
    return f" // {remark}" if remark else ""
