"""The input of a custom tool, free text, as the model writes it: the one text of a function's arguments. Pure."""

from __future__ import annotations

import json
import re

from gptoss_bento.strict_json import dumps

NAME = "input"
"""Of the argument."""

_BEFORE = ("{", f'"{NAME}"', ":", '"')  # the tokens before the text, between which white space may be
_START = re.compile(r'\s*\{\s*"input"\s*:\s*"')
# Whole characters of a JSON string: an escape that has not come to its end waits, and so does half a surrogate pair.
_WHOLE = re.compile(
    r"(?:[^\"\\]|\\[\"\\/bfnrt]|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|\\u(?![dD][89abAB])[0-9a-fA-F]{4})*"
)


def arguments_of(text: str) -> str:
    """The arguments that have this input, as a prompt has them."""
    return dumps({NAME: text})


def input_of(arguments: str) -> str:
    """The input in a call's arguments, which may have been cut; the arguments themselves if they have none."""
    try:
        fields = json.loads(arguments, strict=False)
    except ValueError:
        start = _START.match(arguments)
        return _decoded(arguments, start.end())[0] if start else arguments
    found = fields.get(NAME) if isinstance(fields, dict) else None
    return found if isinstance(found, str) else arguments


class StreamedInput:
    """The input of one call as its arguments come."""

    def __init__(self) -> None:
        self._waiting = ""
        self._before = list(_BEFORE)

    def add(self, arguments: str) -> str:
        """What a further piece of the arguments adds to the input; all pieces together are how `input_of` begins."""
        self._waiting += arguments
        if not self._has_started():
            return ""
        text, end = _decoded(self._waiting, 0)
        self._waiting = self._waiting[end:]
        return text

    def _has_started(self) -> bool:
        """Takes what comes before the text; white space is not kept, for a model may write any number of pieces."""
        while self._before:
            self._waiting = self._waiting.lstrip()
            token = self._before[0]
            if not self._waiting.startswith(token):
                if not token.startswith(self._waiting):
                    self._waiting = "-"  # no token starts so: these arguments have no such text
                return False
            self._waiting = self._waiting[len(token) :]
            del self._before[0]
        return True


def _decoded(text: str, start: int) -> tuple[str, int]:
    """The characters of a JSON string that are whole, and where in the text they end."""
    found = _WHOLE.match(text, start)
    raw = found.group() if found else ""
    decoded: str = json.loads(f'"{raw}"', strict=False)
    return decoded, start + len(raw)
