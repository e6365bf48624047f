"""JSON as it travels and is stored: one line, valid UTF-8 whatever the strings hold, and only what JSON knows."""

from __future__ import annotations

import json
from typing import Any, NoReturn


def dumps(value: Any) -> str:
    """One line of JSON that can be encoded as UTF-8; lone surrogates, which JSON can carry, are escaped."""
    text = _ENCODER.encode(value)
    return text if encodable(text) else json.dumps(value, separators=(",", ":"))


def loads(text: str | bytes) -> Any:
    """Parses strict JSON.

    Raises:
        ValueError: it is not JSON: wrong syntax or encoding, `NaN`, `Infinity`, or nested too deeply to be handled.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode(json.detect_encoding(text), "surrogatepass")  # as json.loads does
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def loads_stored(text: str) -> Any:
    """Parses what `dumps` wrote. It writes a number too large for a float, such as 1e999, as `Infinity`."""
    return json.loads(text)


def shown(value: Any, limit: int = 100) -> str:
    """A value as an error message shows it: JSON, cut to `limit` characters, always encodable."""
    try:
        text = dumps(value)
    except RecursionError:
        return "a deeply nested value"
    return text if len(text) <= limit else f"{text[:limit]}…"


def shown_name(name: str) -> str:
    """The name of a field as an error message shows it, without quotes; cut and encodable as `shown` makes it."""
    return shown(name).strip('"')


def encodable(text: str) -> bool:
    """Whether the text is valid Unicode, without lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


# Made once: the module's own functions make them again at each call, for a third of the time of a small document.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_DECODER = json.JSONDecoder(parse_constant=_refuse)
