"""What may be shown of values that operators set: secrets are left out, by the name they go under."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

HIDDEN = "***"

# Whole words of a name, so that `hf_token` is one and `max_num_batched_tokens` is not. The final one may also end in
# one of them, as in PGPASSWORD.
_SECRET_WORDS = frozenset(
    [
        "apikey",
        "auth",
        "authorization",
        "credential",
        "credentials",
        "key",
        "keys",
        "passwd",
        "password",
        "secret",
        "secrets",
        "token",
    ]
)
_SECRET_ENDS = ("key", "keys", "token", "secret", "password", "credential", "credentials")
_HOLD_SECRETS = frozenset({"job_store_url", "vllm_extra_args"})  # a password in an address, options with keys
# What a name with such a word means instead: where a secret is kept, how many tokens, whether something is allowed.
_PLACES_AND_COUNTS = frozenset({"bytes", "dir", "file", "folder", "ids", "path", "sock", "threshold"})
_SWITCHES = frozenset({"allow", "enable", "return"})
_USER_IN_URL = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def redacted(name: str, value: Any) -> Any:
    """The value, or what can be shown of it: nothing under a name that speaks of secrets, no user in an address."""
    if is_secret(name) and value not in (None, "", (), []):
        return HIDDEN
    if isinstance(value, dict):
        return {key: redacted(str(key), item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(redacted("", item) for item in value)
    return _USER_IN_URL.sub(HIDDEN, value) if isinstance(value, str) else value


def is_secret(name: str) -> bool:
    """Whether what goes under this name, of an option, a variable or a field, may be a secret.

    The one rule for all that is shown: plans, error messages, findings, the form of the hub.
    """
    words = re.findall("[a-z]+", name.lower())
    if words[-2:] == ["per", "key"]:  # a number for each key
        return False
    if not words or words[-1] in _PLACES_AND_COUNTS or words[0] in _SWITCHES:
        return False
    if "_".join(words) in _HOLD_SECRETS:
        return True
    return bool(_SECRET_WORDS & set(words)) or words[-1].endswith(_SECRET_ENDS)


def redacted_arguments(words: tuple[str, ...] | list[str]) -> list[str]:
    """Command-line arguments without the values of options that may be secrets, `--name value` and `--name=value`."""
    shown: list[str] = []
    hides_next = False
    for word in words:
        flag, equals, _ = word.partition("=")
        is_flag = word.startswith("--")
        secret = is_flag and is_secret(flag)
        if hides_next and not is_flag:
            shown.append(HIDDEN)
        else:
            shown.append(f"{flag}={HIDDEN}" if secret and equals else _redacted_word(word))
        hides_next = secret and not equals if is_flag else hides_next
    return shown


def _redacted_word(word: str) -> str:
    flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{flag}{equals}{_redacted_text(value)}"


def _redacted_text(value: str) -> str:
    with suppress(ValueError):
        if value.startswith(("{", "[")):
            return json.dumps(redacted("", json.loads(value)))
    return _USER_IN_URL.sub(HIDDEN, value)
