"""Writes the table of a request's fields into docs/openai-api.md: `python -m tools.request_fields`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from gptoss_bento.http.fields.other_architectures import OTHER_FIELDS
from gptoss_bento.http.fields.table import FIELDS, Field, Use
from gptoss_bento.http.paths import CHAT_BATCH

DOCUMENT = Path(__file__).parents[1] / "docs" / "openai-api.md"
BEGIN, END = "<!-- fields: begin -->", "<!-- fields: end -->"
_ROUTES = [path for path in FIELDS if path != CHAT_BATCH]  # which takes what chats take


def filled(text: str) -> str:
    """The document with the table as the code has it.

    Raises:
        ValueError: it has no place for it.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{DOCUMENT.name} has no {BEGIN} and {END}")
    return before + "\n".join([BEGIN, *_lines(), END]) + after


def _lines() -> Iterator[str]:
    yield from ("| route | honoured |", "|---|---|")
    for path in _ROUTES:
        names = sorted(name for name, field in FIELDS[path].items() if field.use is Use.HONOURED)
        yield f"| `{path}` | {', '.join(f'`{name}`' for name in names)} |"
    yield from ("", "| accepted, no effect on the answer | routes | |", "|---|---|---|")
    for name, field in _grouped(Use.NO_EFFECT):
        yield f"| `{name}` | {_routes(name, field)} | {field.why} |"
    yield from ("", "| refused, 400 | routes | | accepted values |", "|---|---|---|---|")
    for name, field in _grouped(Use.REFUSED):
        values = ", ".join(f"`{json.dumps(value)}`" for value in field.harmless)
        yield f"| `{name}` | {_routes(name, field)} | {field.why} | {values} |"
    yield from ("", "| with another architecture | routes | |", "|---|---|---|")
    for name, field in _different():
        yield f"| `{name}` | {_routes(name, field, OTHER_FIELDS)} | {f'{field.use.value}: {field.why}'.rstrip(': ')} |"


def _grouped(use: Use) -> list[tuple[str, Field]]:
    """Each field once for each thing that is said of it."""
    return _once([(name, field) for path in _ROUTES for name, field in FIELDS[path].items() if field.use is use])


def _different() -> list[tuple[str, Field]]:
    """What another model than GPT-OSS makes of a field, if it is something else."""
    return _once([row for path in _ROUTES for row in OTHER_FIELDS[path].items() if row not in FIELDS[path].items()])


def _once(found: list[tuple[str, Field]]) -> list[tuple[str, Field]]:
    return sorted(((name, field) for i, (name, field) in enumerate(found) if (name, field) not in found[:i]), key=_name)


def _name(row: tuple[str, Field]) -> str:
    return row[0]


def _routes(name: str, field: Field, fields: Mapping[str, Mapping[str, Field]] = FIELDS) -> str:
    short = [path.removeprefix("/v1/") for path in _ROUTES if fields[path].get(name) == field]
    return ", ".join(short)


if __name__ == "__main__":
    DOCUMENT.write_text(filled(DOCUMENT.read_text()))
