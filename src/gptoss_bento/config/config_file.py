"""`VLLM_CONFIG_FILE`: a YAML file of vLLM options → option values, as vLLM's own loader would read them.

Source of the spellings: `FlexibleArgumentParser.load_config_file` of vLLM 0.32 (vllm/utils/argparse_utils.py), which
turns each line into words of a command line: a line may name an option as its flag does, also `no-…`, a unique
beginning, or an entry with a dot. tests/contract/test_config_file.py compares with it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from gptoss_bento.config import extra_args
from gptoss_bento.config.vllm_options import Option, as_word, known_options
from gptoss_bento.spelling import nearest


@dataclass(frozen=True)
class WrongValue:
    """A line whose value vLLM would not take, and what it would."""

    key: str
    text: str
    allowed: str


@dataclass
class FileOptions:
    """What a file says. `unknown` are sentences on lines that name no option, or one that is not for the file."""

    values: dict[str, Any] = field(default_factory=dict)
    wrong: list[WrongValue] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_options(content: Mapping[Any, Any], reserved: Collection[str]) -> FileOptions:
    """The options of a file by name. Lines without a value (null, an empty list) say nothing.

    Args:
        reserved: options that this server decides.
    """
    found = FileOptions()
    entries: dict[str, dict[str, Any]] = {}
    for key, value in ((str(key), value) for key, value in content.items()):
        name, dot, _ = key.partition(".")
        option, negated = extra_args.find_option(f"--{name}") or (None, False)
        if option is None or option.name in reserved:
            found.unknown.append(_unknown(key, name, option))
        elif value is None or value == []:
            continue
        elif dot:
            entries.setdefault(option.name, {})[key] = value
        elif negated and value is False:
            found.warnings.append(f"{key}: false has no effect, as in vLLM; to say yes, write {option.flag[2:]}: true")
        else:
            _add(found, key, option, negated, value)
    for name, lines in entries.items():
        _add_entries(found, known_options()[name], lines)
    return found


def _unknown(key: str, name: str, option: Option | None) -> str:
    if option is not None:
        return f"{key}: this server decides it; leave it out"
    close = nearest(name.replace("-", "_"), known_options())
    return f"{key}: vLLM has no such option" + (f"; did you mean {close}?" if close else "")


def _add(found: FileOptions, key: str, option: Option, negated: bool, value: Any) -> None:
    try:
        parsed = _parsed(option, value)
    except ValueError as error:
        found.wrong.append(WrongValue(key, as_word(value), str(error)))
        return
    if option.name in found.values:
        found.warnings.append(f"{key}: the option is there twice; the last one is used, as in vLLM")
    found.values[option.name] = not parsed if negated else parsed


def _parsed(option: Option, value: Any) -> Any:
    """The value of one line. Raises ValueError saying what is allowed."""
    is_switch = option.kind in ("switch", "flag")
    if isinstance(value, list) and len(value) == 1 and not (option.many or is_switch or option.kind == "json"):
        value = value[0]  # one word behind the flag
    if isinstance(value, bool) and not is_switch:
        raise ValueError("a value; vLLM takes true and false for switches alone")
    return option.parse(as_word(value))


def _add_entries(found: FileOptions, option: Option, lines: Mapping[str, Any]) -> None:
    """Lines such as `compilation-config.mode: 3`, which become one value."""
    first = next(iter(lines))
    words = [word for key, value in lines.items() for word in (f"--{key}", as_word(value))]
    try:
        if option.name in found.values:
            raise ValueError(f"{option.flag[2:]} as one value or entry by entry, not both")
        found.values |= extra_args.parse(words)
    except ValueError as error:
        found.wrong.append(WrongValue(first, as_word(lines[first]), str(error)))
