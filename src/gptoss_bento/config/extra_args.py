"""`VLLM_EXTRA_ARGS`: arguments of a command line → option values, as vLLM's own parser would read them.

The one place where such words are taken apart: the plan shows, checks and estimates the values as it does all others.

Source of the spellings: `FlexibleArgumentParser.parse_args` of vLLM 0.32 (vllm/utils/argparse_utils.py).
tests/contract/test_extra_args.py compares with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from gptoss_bento.config.vllm_options import Option, known_options
from gptoss_bento.spelling import nearest

_FLAG = re.compile(r"-{1,2}[A-Za-z]")
_LEVEL = "-O"  # vLLM's optimization level, written as compilers take it: -O3, -O=3, -O 3
_HUMAN = re.compile(r"(\d+(?:\.\d+)?)([kmgt])", re.IGNORECASE)


@dataclass
class _Said:
    """One flag and the words behind it. `entry` is the path of `--option.entry`, which sets a part of the option."""

    flag: str
    entry: tuple[str, ...] = ()
    appends: bool = False  # `--option.entry+`: one more item of a list
    words: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return ".".join((self.flag, *self.entry)) + ("+" if self.appends else "")


def parse(words: Sequence[str], reserved: Collection[str] = ()) -> dict[str, Any]:
    """Option values by name. Entries of one structured option (`--compilation-config.mode 3`) become its one value.

    Raises:
        ValueError: one is no option of vLLM, or one that this server decides; or a value is wrong. The text says
            what is allowed; values are not shown, because they may be keys.
    """
    values: dict[str, Any] = {}
    entries: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    for said in _split(words):
        try:
            option, negated = _option(said.flag, reserved)
            if said.entry:
                _merge(entries.setdefault(option.name, {}), said.entry, _entry_value(said))
            else:
                parsed = _value(option, negated, said.words)
                values[option.name] = values.get(option.name, []) + parsed if option.many == "repeat" else parsed
        except ValueError as error:
            problems.append(str(error))
    for name, entry in entries.items():
        try:
            values[name] = _structured(known_options()[name], entry, name in values)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("; ".join(problems))
    return values


def _split(words: Sequence[str]) -> Iterator[_Said]:
    """Each flag with the arguments behind it."""
    said: _Said | None = None
    for word in words:
        if _FLAG.match(word):
            if said:
                yield said
            said = _begun(word)
        elif said is None:
            raise ValueError("arguments that start with an option, such as --max-model-len 8192")
        else:
            said.words.append(word)
    if said:
        yield said


def _begun(word: str) -> _Said:
    if word.startswith(_LEVEL):
        level = word.removeprefix(_LEVEL).removeprefix("=")
        return _Said("--optimization-level", words=[level] if level else [])
    path, has_value, value = word.partition("=")
    flag, *entry = path.removesuffix("+").split(".")
    appends = bool(entry) and path.endswith("+")
    return _Said(flag if entry else path, tuple(entry), appends, [value] if has_value else [])


def _option(flag: str, reserved: Collection[str]) -> tuple[Option, bool]:
    found = find_option(flag)
    if found is None:
        flag = _dashed(flag)
        close = nearest(flag, _flags())
        raise ValueError(f"options of vLLM; {flag} is none" + (f", did you mean {close}?" if close else ""))
    if found[0].name in reserved:
        raise ValueError(f"vLLM options without {_dashed(flag)}, which this server decides")
    return found


def find_option(flag: str) -> tuple[Option, bool] | None:
    """The option of a flag, and whether the flag says no. Underscores and unique beginnings will do, as to vLLM."""
    flag, flags = _dashed(flag), _flags()
    matches = {id(option): (option, negated) for each, (option, negated) in flags.items() if each.startswith(flag)}
    return flags.get(flag) or (next(iter(matches.values())) if len(matches) == 1 and flag.startswith("--") else None)


def _dashed(flag: str) -> str:
    return "--" + flag[2:].replace("_", "-") if flag.startswith("--") else flag


@cache
def _flags() -> Mapping[str, tuple[Option, bool]]:
    """All flags with their options, and whether they say no."""
    options = known_options().values()
    yes = {each: (option, False) for option in options for each in option.flags}
    switches = [option for option in options if option.kind == "switch"]
    return yes | {
        f"--no-{each[2:]}": (option, True) for option in switches for each in option.flags if each.startswith("--")
    }


def _value(option: Option, negated: bool, given: list[str]) -> Any:
    if option.kind in ("switch", "flag"):
        if given:
            raise ValueError(f"{option.flag} without a value behind it")
        return not negated
    if not given or (len(given) > 1 and not option.many):
        raise ValueError(f"{option.flag} with one value" if not option.many else f"{option.flag} with values")
    try:
        return option.parse_arguments(given) if option.many else option.parse(given[0])
    except ValueError as error:
        raise ValueError(f"{option.flag} with {error}") from None


def _structured(option: Option, entries: Mapping[str, Any], is_said: bool) -> Any:
    """vLLM would take the entries alone, so that what was said of the whole option would be lost without a word."""
    if option.kind != "json":
        raise ValueError(f"{option.flag} without entries")
    if is_said:
        raise ValueError(f"{option.flag} as one value or entry by entry, not both")
    return _value(option, False, [json.dumps(entries)])


def _entry_value(said: _Said) -> Any:
    if len(said.words) != 1:
        raise ValueError(f"{said} with one value")
    text = said.words[0]
    if said.appends:
        return text.split(",")
    try:
        return json.loads(text)
    except ValueError:
        return _number(text)


def _number(text: str) -> int | str:
    """The number that people write as 4k (4000) or 4K (4096), or else the text."""
    if not (match := _HUMAN.fullmatch(text.strip())):
        try:
            return int(text)  # what JSON does not know: 007, +5, 1_000
        except ValueError:
            return text
    number, suffix = match.groups()
    power = "kmgt".index(suffix.lower()) + 1
    if suffix.islower():
        return int(float(number) * 1000**power)
    return int(number) * 1024**power if number.isdecimal() else text


def _merge(into: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Sets the entry at this path: lists grow, structures are merged, and of other values the last one counts."""
    key, *below = path
    value = _nested(below, value)
    known = into.get(key)
    if isinstance(known, dict) and isinstance(value, dict):
        for name, each in value.items():
            _merge(known, [name], each)
    else:
        into[key] = [*known, *value] if isinstance(known, list) and isinstance(value, list) else value


def _nested(path: Sequence[str], value: Any) -> Any:
    for key in reversed(path):
        value = {key: value}
    return value
