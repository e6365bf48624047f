"""The check of a batch's input before any of its lines is run."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from gptoss_bento.batches.line_ids import LineIds
from gptoss_bento.batches.lines import Line, LineError, parsed

MOST_LINES = 50_000
"""As OpenAI's."""
_MOST_ERRORS = 100


@dataclass
class CheckedInput:
    """What an input has.

    Attributes:
        total: its requests.
        model: of the first request that names one.
        errors: what is wrong, of the first lines that are.
    """

    total: int = 0
    model: str | None = None
    errors: list[LineError] = field(default_factory=list)


async def checked_input(lines: AsyncGenerator[tuple[int, bytes]], endpoint: str) -> CheckedInput:
    """Reads an input to its end, or until so much is wrong that no client reads on."""
    found, ids = CheckedInput(), LineIds()
    try:
        async with aclosing(lines):
            async for number, raw in lines:
                _check(found, ids, number, raw, endpoint)
                if len(found.errors) >= _MOST_ERRORS:
                    break
    except LineError as error:  # what comes after it cannot be read
        found.errors.append(error)
    if not found.total and not found.errors:
        found.errors.append(LineError("empty_file", "The input file has no line.", 1))
    return found


def _check(found: CheckedInput, ids: LineIds, number: int, raw: bytes, endpoint: str) -> None:
    try:
        line = parsed(number, raw, endpoint)
    except LineError as error:
        found.errors.append(error)
        return
    if line is None:
        return
    found.total += 1
    if found.total > MOST_LINES:
        raise LineError("too_many_lines", f"An input may have {MOST_LINES} requests.", number)
    if not ids.add(line.custom_id):
        message = f"custom_id {line.custom_id!r} is that of an earlier line, too."
        found.errors.append(LineError("duplicate_custom_id", message, number, "custom_id"))
    found.model = found.model or _model_of(line)


def _model_of(line: Line) -> str | None:
    model = line.body.get("model")
    return model if isinstance(model, str) else None
