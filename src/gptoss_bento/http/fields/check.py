"""What the engine gets of a request, so that nothing in it has no effect without a word: by the table. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from gptoss_bento.http.errors import FieldError
from gptoss_bento.http.fields.integers import too_large
from gptoss_bento.http.fields.other_architectures import OTHER_FIELDS
from gptoss_bento.http.fields.parts import refuse_beside_content, refuse_other_than_text
from gptoss_bento.http.fields.schemas import refuse_schemas
from gptoss_bento.http.fields.served_model import GPT_OSS, ServedModel
from gptoss_bento.http.fields.table import FIELDS, NAMES_HERE, Field, Use
from gptoss_bento.http.fields.translation import translations
from gptoss_bento.http.paths import COMPACT, COUNT_TOKENS, INPUT_TOKENS, MESSAGES, RESPONSES
from gptoss_bento.spelling import nearest
from gptoss_bento.strict_json import shown_name

CHECKED = frozenset(FIELDS)
"""The routes whose fields are known."""

_EDITS_WITHOUT_EFFECT = "clear_thinking_"  # Anthropic's, with a date
# What a field of another route may say without meaning anything, beside what is empty, and what means something all the
# same: "no parallel calls", and a seed of 0.
_HARMLESS_ELSEWHERE: Mapping[str, Any] = {
    "n": 1,
    "best_of": 1,
    "top_p": 1,
    "parallel_tool_calls": True,
    "include_reasoning": True,
}
_MEANT_THOUGH_FALSE = frozenset({"parallel_tool_calls", "include_reasoning", "seed"})
_ELSEWHERE: frozenset[str] = frozenset(
    name
    for fields in FIELDS.values()
    for name, field in fields.items()
    if field.use is not Use.NO_EFFECT and "." not in name
)


class _Fields(NamedTuple):
    """Of a route: all, and those within objects by the name of the object."""

    named: Mapping[str, Field]
    inner: Mapping[str, Mapping[str, Field]]


def _with_inner(fields: Mapping[str, Field]) -> _Fields:
    """ "text.verbosity" as "verbosity" within "text"."""
    found: dict[str, dict[str, Field]] = {}
    for name, field in fields.items():
        outer, dot, inner = name.partition(".")
        if dot:
            found.setdefault(outer, {})[inner] = field
    return _Fields(fields, found)


_OF_HARMONY = {path: _with_inner(fields) for path, fields in FIELDS.items()}
_OF_TEMPLATES = {path: _with_inner(fields) for path, fields in OTHER_FIELDS.items()}


@dataclass(frozen=True)
class Checked:
    """A request whose every field has an effect, or none by the table.

    Args:
        body: as the engine gets it; the very one that was given if nothing had to be changed.
        ignored: names of unknown fields.
    """

    body: Mapping[str, Any]
    ignored: tuple[str, ...] = ()


def checked(
    path: str, body: Mapping[str, Any], model: ServedModel = GPT_OSS, *, refuse_unknown: bool = False
) -> Checked:
    """Holds a request against the table. A null means that a field is not given.

    Args:
        path: the engine's route, without prefix; of another than `CHECKED` everything passes.
        body: the request, as parsed JSON; it is not changed.
        model: that answers it.
        refuse_unknown: whether an unknown field is refused.

    Raises:
        FieldError: a field would have no effect though it should, or a message has what is no text.
    """
    if path not in FIELDS:
        return Checked(body)
    fields = (_OF_HARMONY if model.writes_harmony else _OF_TEMPLATES)[path]
    nulls, ignored = _looked_through(path, body, fields)
    if ignored and refuse_unknown:
        raise _unknown(path, ignored[0])
    if model.writes_harmony:
        refuse_other_than_text(path, body)
    else:
        refuse_beside_content(path, body)
    refuse_schemas(body)
    return Checked(_translated(path, body, nulls, model), tuple(ignored))


def _looked_through(path: str, body: Mapping[str, Any], fields: _Fields) -> tuple[list[str], list[str]]:
    """The names of fields that are null, and of unknown ones."""
    nulls, unknown = [], []
    for name, value in body.items():
        _refuse_if_too_large(path, name, value)
        if value is None:
            nulls.append(name)
        elif (field := fields.named.get(name)) is None or "." in name:
            _refuse_if_meant(path, name, value)
            unknown.append(name)
        elif field.use is Use.REFUSED:
            _refuse(name, field, value)
        elif name in fields.inner and isinstance(value, dict):
            unknown += _look_within(name, fields.inner[name], value)
    if path in (MESSAGES, COUNT_TOKENS):
        _refuse_edits(body.get("context_management"))
    return nulls, unknown


def _look_within(outer: str, fields: Mapping[str, Field], given: Mapping[str, Any]) -> list[str]:
    unknown = []
    for name, value in given.items():
        field = fields.get(name)
        if field is None:
            unknown.append(f"{outer}.{name}")
        elif field.use is Use.REFUSED and value is not None:
            _refuse(f"{outer}.{name}", field, value)
    return unknown


def _refuse_if_too_large(path: str, name: str, value: Any) -> None:
    if found := too_large(path, name, value):
        raise FieldError(found[0], f"{found[1]}.")


def _refuse(name: str, field: Field, value: Any) -> None:
    if value not in field.harmless:
        raise FieldError(name, f"{name} {field.why}.")


def _refuse_if_meant(path: str, name: str, value: Any) -> None:
    """A field of another route would have an effect, if it were one of this route."""
    if name in _ELSEWHERE and _is_meant(name, value):
        here = NAMES_HERE.get(path, {}).get(name)
        instead = f": use `{here}`" if here else ""
        raise FieldError(name, f"{name} is no field of {path}{instead}.")


def _is_meant(name: str, value: Any) -> bool:
    if not value:
        return name in _MEANT_THOUGH_FALSE
    return name not in _HARMLESS_ELSEWHERE or value != _HARMLESS_ELSEWHERE[name]


def _unknown(path: str, name: str) -> FieldError:
    printed = shown_name(name)
    near = nearest(printed, FIELDS[path])  # of the cut name: a comparison with megabytes takes a second
    meant = f" Did you mean {near}?" if near else ""
    return FieldError(printed, f"{printed} is no field of {path}.{meant}")


def _refuse_edits(management: Any) -> None:
    edits = management.get("edits") if isinstance(management, dict) else None
    for number, edit in enumerate(edits if isinstance(edits, list) else ()):
        kind = edit.get("type") if isinstance(edit, dict) else None
        if not (isinstance(kind, str) and kind.startswith(_EDITS_WITHOUT_EFFECT)):
            where = f"context_management.edits[{number}].type"
            raise FieldError(where, f"{where} is not done here: shorten `messages`.")


def _translated(path: str, body: Mapping[str, Any], nulls: list[str], model: ServedModel) -> Mapping[str, Any]:
    made = {name: value for name, value in body.items() if value is not None} if nulls else body
    like = RESPONSES if path in (INPUT_TOKENS, COMPACT) else path  # what is counted is what would be generated from
    for translation in translations(model):
        if changes := translation(like, made):
            made = {name: value for name, value in {**made, **changes}.items() if value is not None}
    return made
