"""`VLLM_EXTRA_ARGS`: words of a command line → option values, as vLLM's own parser would read them.

The plan can then show them and check them. Words that set one entry of a structured option
(`--compilation-config.mode 3`) are left to vLLM's parser, which reads them last.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from gptoss_bento.config.vllm_options import Option, known_options
from gptoss_bento.spelling import nearest

_FLAG = re.compile(r"-{1,2}[A-Za-z]")
_LEVEL = re.compile(r"-O\d")  # vLLM's optimization level, written as compilers take it


def parse(words: Sequence[str], reserved: Collection[str] = ()) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Option values by name, and the words left to vLLM.

    Raises:
        ValueError: a word is no option of vLLM, or one that this server decides; or a value is wrong. The text says
            what is allowed; values are not shown, because they may be keys.
    """
    values: dict[str, Any] = {}
    rest: list[str] = []
    problems: list[str] = []
    for flag, given in _groups(words):
        name, has_value, value = flag.partition("=")
        if "." in name or _LEVEL.fullmatch(name):
            rest += [flag, *given]
            continue
        try:
            option, negated = _option(name, reserved)
            parsed = _value(option, negated, [value, *given] if has_value else given)
        except ValueError as error:
            problems.append(str(error))
            continue
        values[option.name] = values.get(option.name, []) + parsed if option.many == "repeat" else parsed
    if problems:
        raise ValueError("; ".join(problems))
    return values, tuple(rest)


def _groups(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each flag with the words behind it."""
    flag: str | None = None
    given: list[str] = []
    for word in words:
        if _FLAG.match(word):
            if flag:
                yield flag, given
            flag, given = word, []
        elif flag is None:
            raise ValueError("words that begin with an option, such as --max-model-len 8192")
        else:
            given.append(word)
    if flag:
        yield flag, given


def _option(flag: str, reserved: Collection[str]) -> tuple[Option, bool]:
    """The option of a flag, and whether the flag says no. Underscores and unique beginnings will do, as to vLLM."""
    flag = "--" + flag[2:].replace("_", "-") if flag.startswith("--") else flag
    flags = _flags()
    matches = {id(option): (option, negated) for each, (option, negated) in flags.items() if each.startswith(flag)}
    found = flags.get(flag) or (next(iter(matches.values())) if len(matches) == 1 and flag.startswith("--") else None)
    if found is None:
        close = nearest(flag, flags)
        raise ValueError(f"options of vLLM; {flag} is none" + (f", did you mean {close}?" if close else ""))
    if found[0].name in reserved:
        raise ValueError(f"vLLM options without {flag}, which this server decides")
    return found


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
        return option.parse_words(given) if option.many else option.parse(given[0])
    except ValueError as error:
        raise ValueError(f"{option.flag} with {error}") from None
