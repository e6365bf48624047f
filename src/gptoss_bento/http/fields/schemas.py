"""Schemas and patterns in a request that mean nothing, or would not be enforced though that was asked for. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from gptoss_bento import strict_json
from gptoss_bento.http.errors import FieldError
from gptoss_bento.http.json_schema.enforcement import unenforced
from gptoss_bento.http.json_schema.faults import Fault, Severity, faults, joined
from gptoss_bento.http.json_schema.regex import flaw_of

_MOST_NAMED = 10  # of what cannot be enforced


class _Place(NamedTuple):
    """A schema of a request.

    Attributes:
        name: of the field that has it, as the client wrote it.
        strict: whether the client asked that all of it be enforced.
        is_tools: whether it is of a tool that is not strict: what has no grammar is left out of it.
    """

    name: str
    schema: Any
    strict: bool
    is_tools: bool = False


def refuse_schemas(body: Mapping[str, Any]) -> None:
    """Refuses schemas that are none, of which there is no grammar, or not of all of it although they are `strict`.

    Args:
        body: of a request of any route, by the client's names.

    Raises:
        FieldError: with the place within the schema.
    """
    for place in (*_formats(body), *_constraints(body), *_tools(body)):
        found = _found(strict_json.dumps(place.schema))
        serious = {Severity.INVALID} if place.is_tools else {Severity.INVALID, Severity.NO_GRAMMAR}
        if fault := next((fault for fault in found if fault.severity in serious), None):
            raise FieldError(joined(place.name, fault.place), f"{joined(place.name, fault.place)} {fault.reason}.")
        if place.strict and found:
            raise _not_strict(place.name, found)
    _refuse_patterns(body)


def _not_strict(name: str, found: tuple[Fault, ...]) -> FieldError:
    named = [f"{joined(name, fault.place)} {fault.reason}" for fault in found[:_MOST_NAMED]]
    more = f"; and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    hint = "`strict` asks for all of a schema; without it the rest is enforced."
    return FieldError(joined(name, found[0].place), f"{'; '.join(named)}{more}. {hint}")


@lru_cache(maxsize=512)
def _found(schema: str) -> tuple[Fault, ...]:
    """All that is wrong with a schema, as JSON: clients send the same tools with each turn."""
    parsed = strict_json.loads_stored(schema)
    found = tuple(faults(parsed))
    if any(fault.severity is not Severity.NOT_ENFORCED for fault in found):
        return found
    return found + tuple(unenforced(parsed))


def _formats(body: Mapping[str, Any]) -> Iterator[_Place]:
    """The form of the answer: of chats and completions, of responses, and of messages."""
    inner = _object(body.get("response_format")).get("json_schema")
    holders = [
        ("response_format.json_schema", _object(inner)),
        ("text.format", _object(_object(body.get("text")).get("format"))),
        ("output_config.format", _object(_object(body.get("output_config")).get("format"))),
    ]
    for name, holder in holders:
        if holder.get("schema") is not None:
            yield _Place(f"{name}.schema", holder["schema"], holder.get("strict") is True)


def _constraints(body: Mapping[str, Any]) -> Iterator[_Place]:
    """vLLM's constraint, and its former name."""
    given = [
        ("structured_outputs.json", _object(body.get("structured_outputs")).get("json")),
        ("guided_json", body.get("guided_json")),
    ]
    for name, schema in given:
        if schema is not None:
            yield _Place(name, _parsed(name, schema), strict=False)


def _parsed(name: str, schema: Any) -> Any:
    if not isinstance(schema, str):
        return schema
    try:
        return strict_json.loads(schema)
    except ValueError as error:
        raise FieldError(name, f"{name} must be a JSON schema, and this text is no JSON: {error}.") from None


def _tools(body: Mapping[str, Any]) -> Iterator[_Place]:
    yield from _tools_of("tools", body.get("tools"))


def _tools_of(place: str, tools: Any) -> Iterator[_Place]:
    """A list of tools, of which one may be a namespace with tools of its own."""
    for number, tool in enumerate(tools if isinstance(tools, list) else ()):
        name, holder = f"{place}[{number}]", _object(tool)
        if holder.get("type") == "namespace":
            yield from _tools_of(f"{name}.tools", holder.get("tools"))
        if isinstance(holder.get("function"), Mapping):
            name, holder = f"{name}.function", holder["function"]
        key = "input_schema" if "input_schema" in holder else "parameters"
        if holder.get(key) is not None:
            strict = holder.get("strict") is True
            yield _Place(f"{name}.{key}", holder[key], strict, is_tools=not strict)


def _refuse_patterns(body: Mapping[str, Any]) -> None:
    """Regular expressions and choices as constraints."""
    outputs = _object(body.get("structured_outputs"))
    for name, pattern in (
        ("structured_outputs.regex", outputs.get("regex")),
        ("guided_regex", body.get("guided_regex")),
    ):
        if pattern == "":
            raise FieldError(name, f"{name} must not be empty.")
        if isinstance(pattern, str) and (flaw := flaw_of(pattern)):
            raise FieldError(name, f"{name} {flaw.reason}.")
    for name, choice in (
        ("structured_outputs.choice", outputs.get("choice")),
        ("guided_choice", body.get("guided_choice")),
    ):
        if choice == []:
            raise FieldError(name, f"{name} must have at least one choice.")


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
