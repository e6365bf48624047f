"""Files of lines, read a piece at a time; and what a line of a batch's input must be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from gptoss_bento.strict_json import loads, shown

_PIECE_BYTES = 256 * 1024
_LONGEST_ID = 512
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Line:
    """A request of a batch."""

    number: int
    custom_id: str
    body: Mapping[str, Any]


class LineError(Exception):
    """A line is wrong. The text is for the client.

    Args:
        code: as in OpenAI's BatchError.
        message: with what would be right.
        line: its number from 1.
        param: the field.
    """

    def __init__(self, code: str, message: str, line: int, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.line = line
        self.param = param

    def as_object(self) -> dict[str, Any]:
        """OpenAI's BatchError."""
        return {"code": self.code, "line": self.line, "message": str(self), "param": self.param}


async def raw_lines(path: Path, longest: int) -> AsyncGenerator[tuple[int, bytes]]:
    """The lines of a file with their numbers, each with its line end; the last one may have none.

    Other tasks go on between two lines.

    Raises:
        LineError: a line has more bytes than `longest`.
    """
    with _opened(path) as file:
        number, rest = 0, b""
        while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                number += 1
                _check_length(number, line, longest)
                yield number, line + b"\n"
                await asyncio.sleep(0)
            _check_length(number + 1, rest, longest)
        if rest:
            yield number + 1, rest


def _opened(path: Path) -> BinaryIO:
    """Not in a thread: a task that is cancelled meanwhile would leave the file open."""
    return path.open("rb")


def _check_length(number: int, line: bytes, longest: int) -> None:
    if len(line) > longest:
        raise LineError("line_too_long", f"A line may have {longest} bytes (MAX_OPENAI_BODY_BYTES).", number)


def parsed(number: int, raw: bytes, endpoint: str) -> Line | None:
    """A line of a batch's input; None: it is blank.

    Raises:
        LineError: it is no request of this endpoint.
    """
    text = raw.removeprefix(_BOM).strip() if number == 1 else raw.strip()
    if not text:
        return None
    fields = _object(number, text)
    for name, is_right, wanted in (
        ("custom_id", _is_id(fields.get("custom_id")), f"a text of 1 to {_LONGEST_ID} characters"),
        ("method", fields.get("method") == "POST", '"POST"'),
        ("url", fields.get("url") == endpoint, f"the batch's endpoint, {endpoint}"),
        ("body", isinstance(fields.get("body"), dict), "a JSON object"),
    ):
        if not is_right:
            message = f"{name} must be {wanted}, got {shown(fields.get(name))}."
            raise LineError(f"invalid_{name}", message, number, name)
    body: dict[str, Any] = fields["body"]
    for name in ("stream", "background"):
        if body.get(name):
            message = f"body.{name} must be false: a batch has its answers in a file."
            raise LineError(f"{name}_not_supported", message, number, f"body.{name}")
    return Line(number, fields["custom_id"], body)


def _object(number: int, text: bytes) -> dict[str, Any]:
    try:
        fields = loads(text)
    except ValueError as error:
        raise LineError("invalid_json_line", f"The line is not JSON: {_reason(error)}", number) from None
    if not isinstance(fields, dict):
        raise LineError("invalid_json_line", f"The line must be a JSON object, got {shown(fields)}.", number)
    return fields


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_ID


def _reason(error: ValueError) -> str:
    return "it is not UTF-8." if isinstance(error, UnicodeDecodeError) else f"{str(error).splitlines()[0]}."
