"""The options of `vllm serve`, known without importing vLLM.

vLLM takes seconds to import, and `gptoss-bento plan` must answer immediately on a machine that may not even have it. So
`vllm_options.json` holds what vLLM's own argument parser says of itself. `engine.describe_options` writes it, and a
contract test fails when it is out of date: it is a recording, never edited by hand.
"""

from __future__ import annotations

import json
import re
from argparse import SUPPRESS
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

Kind = Literal["switch", "flag", "int", "float", "count", "json", "text"]
"""switch: --x or --no-x; flag: --x alone; count: an integer that may be written 4k or 1M, or auto; others as named."""

_SUPPRESSED = json.dumps(SUPPRESS)

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})


@dataclass(frozen=True)
class Option:
    """One option of vLLM's server. `name` is the argparse destination, such as `max_model_len`.

    `many` says how several values are written: as "words" behind one flag, by "repeat"ing it, or not at all. `flags`
    are all its spellings, short ones included; `default` is vLLM's, as text.
    """

    name: str
    flag: str
    kind: Kind
    many: Literal["", "words", "repeat"]
    choices: tuple[str, ...]
    help: str
    flags: tuple[str, ...] = ()
    default: str = ""

    @property
    def has_default(self) -> bool:
        """Whether vLLM has a default for it that can be shown; argparse's SUPPRESS means none at all."""
        return self.default not in ("", _SUPPRESSED)

    @property
    def is_suppressed(self) -> bool:
        """Whether vLLM leaves it out of its arguments unless it is given: ways to say what other options say."""
        return self.default == _SUPPRESSED

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return self.name.upper()

    def parse(self, text: str) -> Any:
        """Turns a variable's text into a value. Raises ValueError saying what is allowed."""
        if self.many:
            return _parse_list(text, self)
        return self._parse_one(text)

    def parse_arguments(self, words: Sequence[str]) -> list[Any]:
        """Turns the arguments behind its flag into values. Raises ValueError saying what is allowed."""
        return [self._parse_one(word) for word in words]

    def _parse_one(self, text: str) -> Any:
        if self.kind in ("switch", "flag"):
            return parse_bool(text)
        if self.choices:
            text = self._choice(text)
        if self.kind in ("int", "float"):
            return _parse_number(text, int if self.kind == "int" else float)
        if self.kind == "count":
            return _parse_count(text)
        return _parse_json(text) if self.kind == "json" else text

    def _choice(self, text: str) -> str:
        """The choice as vLLM spells it; letter case is forgiven."""
        for choice in self.choices:
            if choice.lower() == text.strip().lower():
                return choice
        raise ValueError(f"one of {', '.join(self.choices)}")

    def argv(self, value: Any) -> list[str]:
        """The command-line arguments that set this value."""
        if self.kind in ("switch", "flag"):
            if value:
                return [self.flag]
            return [f"--no-{self.flag.removeprefix('--')}"] if self.kind == "switch" else []
        if self.many == "repeat":
            return [f"{self.flag}={as_word(item)}" for item in value]
        if self.many:
            return [self.flag, *(as_word(item) for item in value)]
        return [f"{self.flag}={as_word(value)}"]


@cache
def known_options() -> Mapping[str, Option]:
    """All options by name."""
    rows = json.loads(files(__package__).joinpath("vllm_options.json").read_text())
    return {row["name"]: Option(**{**row, **{key: tuple(row[key]) for key in ("choices", "flags")}}) for row in rows}


def parse_bool(text: str) -> bool:
    """true/false, 1/0, yes/no, on/off in any case. Raises ValueError otherwise."""
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("true or false (1/0, yes/no and on/off also work)")


def _parse_number(text: str, number: type[int] | type[float]) -> int | float:
    try:
        return number(text)
    except ValueError:
        raise ValueError("a whole number" if number is int else "a number") from None


_COUNT = re.compile(r"(-?\d+(?:\.\d+)?)([kKmMgGtT]?)|auto")


def _parse_count(text: str) -> int | str:
    """A number, or the text of one with a suffix, which vLLM's own parser then reads (4k is 4000, 4K is 4096)."""
    if not _COUNT.fullmatch(text.strip()):
        raise ValueError("a whole number, which may end in k, m or g")
    return int(text) if text.strip().lstrip("-").isdecimal() else text.strip()


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        # Some JSON options also take a plain word, as vLLM's `--hf-overrides` takes a path.
        if not text.lstrip().startswith(("{", "[", '"')):
            return text
        raise ValueError(f"valid JSON ({error})") from None


def _parse_list(text: str, option: Option) -> list[Any]:
    if text.lstrip().startswith(("[", "{")):
        items = _parse_json(text)
        items = items if isinstance(items, list) else [items]
        return [item if not isinstance(item, str) else option._parse_one(item) for item in items]
    return [option._parse_one(item.strip()) for item in text.split(",") if item.strip()]


def as_word(value: Any) -> str:
    """A value as a word of a command line: a text as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)
