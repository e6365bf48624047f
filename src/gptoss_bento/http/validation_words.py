"""What is wrong with a body, as `field: what it should be`, which is how Anthropic's API says it.

vLLM 0.32 shows the errors of pydantic as Python objects, a line each:
`{'type': 'greater_than_equal', 'loc': 'body.n', 'msg': 'Input should be greater than 0', 'input': '-1'}`. Pure.
"""

from __future__ import annotations

import ast
import re

from gptoss_bento.strict_json import shown

_HEADING = re.compile(r"\d+ validation errors?:\n")
_TEXT = r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""  # as Python writes it
_ENTRY = re.compile(rf"\s*\{{'type': '[^']*', 'loc': {_TEXT}, 'msg': {_TEXT}(?:, 'input': {_TEXT})?")
_CONTAINER = re.compile(r"<\w+ of \d+ items>")  # in place of a list or an object
_BY_PYDANTIC = re.compile(r"^(?:Value error|Assertion failed), ")


def readable(message: str) -> str:
    """The message with its entries as sentences; one without such entries is returned as it is."""
    heading = _HEADING.match(message)
    if heading is None:
        return message
    lines = message[heading.end() :].splitlines()
    return "; ".join(_sentence(line) for line in lines) if any(map(_ENTRY.match, lines)) else message


def _sentence(line: str) -> str:
    entry = _ENTRY.match(line)
    if entry is None:  # how many more there are
        return line.strip()
    place, text, given = (str(ast.literal_eval(each or "''")) for each in entry.groups())
    field, what = place.removeprefix("body").lstrip("."), _BY_PYDANTIC.sub("", text)
    got = f", got {shown(given)}" if given and not _CONTAINER.fullmatch(given) else ""
    return f"{field}: {what}{got}" if field else what
