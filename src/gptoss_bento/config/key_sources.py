"""Where the API keys of the service come from: variables and a file. Text goes in, keys and problems come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gptoss_bento.config.api_keys import Key, KeysError, listed_keys, read_keys, reason, shared_keys
from gptoss_bento.config.settings import comma_list, is_unset


@dataclass(frozen=True)
class KeySources:
    """Where the keys come from: those of variables, and the file of more. With neither the server is open."""

    fixed: tuple[Key, ...] = field(default=(), repr=False)
    file: Path | None = None
    problems: tuple[str, ...] = ()


def key_sources(environ: Mapping[str, str]) -> KeySources:
    """The keys of `API_KEY` (else `VLLM_API_KEY`) and `API_KEYS`, and the file that `API_KEYS_FILE` names."""
    file = environ.get("API_KEYS_FILE", "")
    path = None if is_unset(file) else Path(file.strip()).expanduser()
    problems: list[str] = []
    first = "API_KEY" if not is_unset(environ.get("API_KEY", "")) else "VLLM_API_KEY"
    listed = _read_keys(first, lambda: listed_keys(key_texts(environ.get(first, ""))), problems)
    document = environ.get("API_KEYS", "")
    named = () if is_unset(document) else _read_keys("API_KEYS", lambda: read_keys(document), problems)
    in_file = _read_keys("API_KEYS_FILE", lambda: read_keys(path.read_text()), problems) if path else ()
    problems.extend(f"API_KEYS: {each}" for each in shared_keys((*listed, *named, *in_file)))
    return KeySources((*listed, *named), path, tuple(problems))


def _read_keys(name: str, read: Callable[[], tuple[Key, ...]], problems: list[str]) -> tuple[Key, ...]:
    try:
        return read()
    except KeysError as error:
        problems.extend(f"{name}: {each}" for each in error.problems)
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{name}: {reason(error)}")
    return ()


def key_texts(text: str) -> tuple[str, ...]:
    """The keys of a comma list, as they are written there."""
    return () if is_unset(text) else comma_list(text)
