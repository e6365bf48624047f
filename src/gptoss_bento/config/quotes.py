"""Quotes left around a value: a shell takes them away, `docker run --env-file` and forms leave them in the value."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from functools import cache

from gptoss_bento.config.settings import ServerSettings, comma_list
from gptoss_bento.config.variables import catalogue, known_names, own_variables
from gptoss_bento.config.vllm_options import known_options

ALLOWED = "the same without quotes around it; a shell takes them away, an env file of Docker leaves them in the value"

_PAIRS = frozenset(["''", '""', "``", "“”", "‘’", "„“"])  # as word processors write them
# Read by libraries, and unknown to the catalogue because they are theirs alone.
_OF_LIBRARIES = (
    "BENTOML_HF_CACHE_DIR", "BENTOML_HOME", "HF_ENDPOINT", "HF_TOKEN_PATH", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY",
    "XDG_CACHE_HOME", "https_proxy", "http_proxy", "no_proxy",
)  # fmt: skip
_SHELL_WORDS = "VLLM_EXTRA_ARGS"


def quoted_variables(environ: Mapping[str, str]) -> list[str]:
    """The variables that have quotes around their value, or around an item of their list."""
    return sorted(name for name in _checked() & environ.keys() if _is_quoted(name, environ[name].strip()))


@cache
def _checked() -> frozenset[str]:
    """All that has a meaning; what has none is met with another message."""
    without_effect = {*catalogue().removed, *catalogue().ignored}
    return (known_names() - without_effect) | frozenset(_OF_LIBRARIES)


def _is_quoted(name: str, text: str) -> bool:
    if name == _SHELL_WORDS:
        return _is_wrapped(text) and len(_words(text)) < 2  # else they quote single arguments
    items = comma_list(text) if name in _lists() and not text.startswith(("[", "{")) else ()
    return any(_is_wrapped(item) for item in (text, *items))


def _is_wrapped(text: str) -> bool:
    return len(text) > 1 and text[0] + text[-1] in _PAIRS


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return []


@cache
def _lists() -> frozenset[str]:
    """The variables that take commas between their items."""
    fields = [name for name, field in ServerSettings.model_fields.items() if isinstance(field.default, tuple)]
    own = [name for field in fields for name in own_variables()[field]]
    options = {option.name: option.variable for option in known_options().values() if option.many}
    others = [name for name, alias in catalogue().aliases.items() if alias.option in options]
    return frozenset([*own, *options.values(), *others, "API_KEY", "VLLM_API_KEY", "CUDA_VISIBLE_DEVICES"])
