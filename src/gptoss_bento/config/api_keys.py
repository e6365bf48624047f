"""Keys and what each may use. Pure: text goes in, keys or all problems together come out, and no key in any of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationError

from gptoss_bento.spelling import nearest

Effort = Literal["low", "medium", "high"]
_Number = Annotated[int | None, Field(strict=True, ge=1)]

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_HASH = re.compile(r"sha256:([0-9a-fA-F]{64})")
_LISTED = "listed"  # a name has no colon
_OWNER_OF = b"gptoss-bento owner "
_OWNER_DIGITS = 32
_TEXT = re.compile(r"[!-+\--~]+")  # what a header carries unchanged; a comma would end it in API_KEY


class KeyLimits(BaseModel):
    """What one key may use. `None`: as much as the server has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_minute: _Number = Field(None, description="Requests that generate, and jobs, a minute.")
    tokens_per_minute: _Number = Field(None, description="Tokens of prompts and answers a minute.")
    streams: _Number = Field(None, description="Simultaneous requests to the OpenAI API, streamed or not.")
    jobs: _Number = Field(None, description="Jobs that have not ended, at the same time.")
    max_tokens: _Number = Field(None, description="Tokens of one answer.")
    reasoning_effort: Effort | None = Field(None, description="The highest effort: low, medium or high.")


class _Entry(KeyLimits):
    """One entry of the file."""

    key: StrictStr | list[StrictStr]

    @property
    def limits(self) -> KeyLimits:
        return KeyLimits.model_construct(**{name: getattr(self, name) for name in KeyLimits.model_fields})


_ALL = KeyLimits()


@dataclass(frozen=True)
class Key:
    """Whom a key belongs to. The key itself is kept as its SHA-256 alone.

    Attributes:
        name: for people; `key-1` for the first of a list.
        is_listed: it is of a list, where its name is only its place.
    """

    name: str
    digests: tuple[bytes, ...] = field(repr=False)
    limits: KeyLimits = _ALL
    is_listed: bool = False

    @cached_property
    def owner(self) -> str:
        """What this key's rows in the database belong to; of a listed key no name, and no digest that a key has."""
        if not self.is_listed:
            return self.name
        return f"{_LISTED}:{hashlib.sha256(_OWNER_OF + self.digests[0]).hexdigest()[:_OWNER_DIGITS]}"

    def __hash__(self) -> int:
        return hash(self.name)  # asked for with each request


class KeysError(ValueError):
    """Something is wrong with the keys; `problems` names each entry, and shows no key."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


def digest(key: str) -> bytes:
    """What of a key is kept and compared."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def listed_keys(texts: Iterable[str]) -> tuple[Key, ...]:
    """The keys of a comma list, in plain or as `sha256:…`, without names or limits.

    Raises:
        KeysError: one of them can be no key.
    """
    numbered = [(f"key {number}", text) for number, text in enumerate(texts, 1)]
    if problems := [f"{name} {problem}" for name, text in numbered if (problem := _problem(text))]:
        raise KeysError(problems)
    return tuple(Key(name.replace(" ", "-"), (_digest(text),), is_listed=True) for name, text in numbered)


def read_keys(text: str) -> tuple[Key, ...]:
    """The keys of a YAML document, one entry a name: docs/keys.md.

    Raises:
        KeysError: it is not YAML, has no entry, or entries are wrong.
    """
    entries = _entries(text)
    problems: list[str] = []
    keys = [key for name, entry in entries.items() if (key := _key(name, entry, problems)) is not None]
    problems.extend(shared_keys(keys))
    if problems:
        raise KeysError(problems)
    return tuple(keys)


def shared_keys(keys: Iterable[Key]) -> list[str]:
    """What is wrong among keys that are good by themselves: one name, or one key, for two."""
    owners: dict[bytes, str] = {}
    names: set[str] = set()
    problems = []
    for key in keys:
        if key.name in names:
            problems.append(f"{key.name}: there are two entries of this name")
        names.add(key.name)
        for each in key.digests:
            if each in owners:
                problems.append(f"{key.name}: its key is also that of {owners[each]}")
            owners[each] = key.name
    return problems


def _entries(text: str) -> Mapping[Any, Any]:
    try:
        content = yaml.load(text, _NoDuplicates)  # noqa: S506  # it is a safe loader
    except yaml.MarkedYAMLError as error:
        raise KeysError([_not_yaml(error)]) from None  # its own text shows a piece of the file
    except yaml.YAMLError:
        raise KeysError(["it is not YAML"]) from None
    except Exception:  # PyYAML's constructors raise anything: ValueError for 2024-99-99, KeyError for `!!bool x`, …
        raise KeysError(["a value in it is not what YAML takes it for; put keys in quotes"]) from None
    if not isinstance(content, dict) or not content:
        raise KeysError(["it must have one entry a key, `name: {key: …}`, and at least one"])
    return content


def _not_yaml(error: yaml.MarkedYAMLError) -> str:
    if isinstance(error, _DuplicateError):
        return str(error.problem)
    mark = error.problem_mark
    return f"it is not YAML (line {mark.line + 1}, column {mark.column + 1})" if mark else "it is not YAML"


class _DuplicateError(yaml.MarkedYAMLError):
    pass


class _NoDuplicates(yaml.SafeLoader):
    """YAML lets the last of two entries of one name win, unseen."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [child.value for child, _ in node.value if isinstance(child, yaml.ScalarNode)]
        for name in names:
            if names.count(name) > 1:
                line = node.start_mark.line + 1
                shown = name if _NAME.fullmatch(name) else "a name"
                raise _DuplicateError(problem=f"{shown} occurs twice in the mapping that begins at line {line}")
        return super().construct_mapping(node, deep)


def _key(name: Any, entry: Any, problems: list[str]) -> Key | None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        problems.append("a name must be of letters, digits, `_`, `.` and `-`, 64 at most (numbers in quotes)")
        return None
    if not isinstance(entry, dict):
        problems.append(f"{name}: must have `key:` and limits below it")
        return None
    try:
        read = _Entry.model_validate(entry)
    except ValidationError as error:
        problems.extend(f"{name}: {problem}" for problem in _wrong_fields(error))
        return None
    texts = [read.key] if isinstance(read.key, str) else read.key
    wrong = [problem for text in texts if (problem := _problem(text))] if texts else ["must not be an empty list"]
    if wrong:
        problems.extend(f"{name}: key {problem}" for problem in wrong)
        return None
    return Key(name, tuple(_digest(text) for text in texts), read.limits)


def _wrong_fields(error: ValidationError) -> Iterator[str]:
    """What pydantic found, without the value of `key`, and once a field."""
    found = {str(each["loc"][0]) if each["loc"] else "": each for each in error.errors()}
    for name, each in found.items():
        if name == "key":
            yield "key is missing" if each["type"] == "missing" else "key must be a text, in quotes, or a list of texts"
        elif each["type"] == "extra_forbidden":
            yield _unknown(name)
        else:
            yield f"{name} must be {_allowed(name)}, got {each['input']!r}"


def _unknown(name: str) -> str:
    close = nearest(name, _Entry.model_fields)
    shown = name if _NAME.fullmatch(name) and close else "a field"  # it may be a misplaced key
    return f"{shown} is unknown; " + (f"did you mean {close}?" if close else f"known: {', '.join(_Entry.model_fields)}")


def _allowed(name: str) -> str:
    return "low, medium or high" if name == "reasoning_effort" else "a whole number of at least 1"


def _problem(text: str) -> str | None:
    """What keeps a text from being a key."""
    if text.lower().startswith("sha256:"):
        return None if _HASH.fullmatch(text) else "must have 64 hex digits after `sha256:`"
    if not _TEXT.fullmatch(text):
        return "must be of printable ASCII characters without spaces and commas, and not empty"
    return None


def _digest(text: str) -> bytes:
    match = _HASH.fullmatch(text)
    return bytes.fromhex(match[1]) if match else digest(text)


def reason(error: Exception) -> str:
    """Why a file of keys cannot be used, with none of its content."""
    if isinstance(error, KeysError):
        return str(error)
    return error.strerror or "it cannot be read" if isinstance(error, OSError) else "it is not UTF-8"
