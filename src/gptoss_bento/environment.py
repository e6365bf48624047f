"""The only reader of environment variables. Text goes in, a checked `Settings` comes out.

The names are those worker-vllm users have: the worker's own (`MODEL_NAME`, `OPENAI_SERVED_MODEL_NAME_OVERRIDE`, …) and
any vLLM option in upper case (`MAX_MODEL_LEN`). All problems are reported at once.
"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from gptoss_bento.errors import ConfigurationError
from gptoss_bento.goal import Goal, parse_goal
from gptoss_bento.vllm_options import Option, known_options

_Value = TypeVar("_Value")

# vLLM options that this server decides or that mean something else in a shell. Source: worker-vllm 2.24 reserves the
# same names; BentoML owns the address, TLS and the number of processes; huggingface_hub reads HF_TOKEN itself.
RESERVED = frozenset(
    [
        "config",
        "headless",
        "help",
        "host",
        "port",
        "uds",
        "grpc",
        "grpc_port",
        "model",
        "model_tag",
        "api_key",
        "hf_token",
        "api_server_count",
        "root_path",
        "ssl_keyfile",
        "ssl_certfile",
        "ssl_ca_certs",
        "ssl_cert_reqs",
        "ssl_ciphers",
        "enable_ssl_refresh",
        "uvicorn_log_level",
        "disable_uvicorn_access_log",
        "disable_access_log_for_endpoints",
    ]
)

_MAY_HOLD_SECRETS = frozenset({"VLLM_EXTRA_ARGS"})
_UNSET = frozenset({"", "none", "null"})  # hub forms send the literal words


@dataclass(frozen=True)
class Settings:
    """What the operator said, checked but not yet completed. `None` means: not said.

    `engine` maps vLLM option names to values; `origins` names the variable each value came from. `process` is the
    whole environment, in which the plan looks for the operator's own values of what it would set itself.
    """

    profile: str | None = None
    goal: Goal | None = None
    model_name: str | None = None
    model_revision: str | None = None
    tokenizer: str | None = None
    served_model_names: tuple[str, ...] = ()
    cache_dir: Path = Path()
    vocabulary_dir: Path | None = None
    visible_devices: str | None = None
    startup_timeout_s: int = 1200
    extra_arguments: tuple[str, ...] = ()
    engine: Mapping[str, Any] = field(default_factory=dict)
    process: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    origins: Mapping[str, str] = field(default_factory=dict)


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Reads and checks the variables.

    Raises:
        ConfigurationError: one line per variable that is wrong, naming it, its value and what is allowed.
    """
    return _Reader(os.environ if environ is None else environ).settings()


class _Reader:
    """Collects values and complaints over one pass."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._problems: list[str] = []
        self._origins: dict[str, str] = {}

    def settings(self) -> Settings:
        settings = Settings(
            profile=self._text("profile", "PROFILE"),
            goal=self._read("goal", ("GOAL",), parse_goal),
            model_name=self._text("model", "MODEL_NAME", "MODEL"),
            model_revision=self._text("revision", "MODEL_REVISION", "REVISION"),
            tokenizer=self._text("tokenizer", "TOKENIZER_NAME", "TOKENIZER"),
            served_model_names=self._names(
                "served_model_name", "OPENAI_SERVED_MODEL_NAME_OVERRIDE", "SERVED_MODEL_NAME"
            ),
            cache_dir=cache_dir(self._environ),
            vocabulary_dir=self._path("vocabulary_dir", "TIKTOKEN_ENCODINGS_BASE"),
            visible_devices=self._environ.get("CUDA_VISIBLE_DEVICES"),
            startup_timeout_s=self._read("startup_timeout_s", ("VLLM_STARTUP_TIMEOUT",), _positive_int) or 1200,
            extra_arguments=self._read("extra_arguments", ("VLLM_EXTRA_ARGS",), _extra_arguments) or (),
            engine=self._engine_options(),
            process=self._environ,
            origins=self._origins,
        )
        if self._problems:
            raise ConfigurationError("\n".join(self._problems))
        return settings

    def _engine_options(self) -> dict[str, Any]:
        values = {}
        for option in known_options().values():
            if option.name in RESERVED or option.name in self._origins:
                continue
            value = self._read(option.name, (option.variable,), option.parse, option)
            if value is not None:
                values[option.name] = value
        return values

    def _read(
        self,
        name: str,
        variables: tuple[str, ...],
        parse: Callable[[str], _Value],
        option: Option | None = None,
    ) -> _Value | None:
        """The first variable that is set decides; its name becomes the origin of the value."""
        for variable in variables:
            text = self._environ.get(variable, "")
            if _unset(text) and not (option and text.lower() in option.choices):
                continue
            try:
                value = parse(text)
            except ValueError as error:
                shown = "its value" if variable in _MAY_HOLD_SECRETS else f"the value {text!r}"
                self._problems.append(f"{variable}: {shown} is not allowed; allowed: {error}")
                return None
            if value not in ("", (), []):
                self._origins[name] = variable
                return value
        return None

    def _text(self, name: str, *variables: str) -> str | None:
        return self._read(name, variables, str.strip)

    def _names(self, name: str, *variables: str) -> tuple[str, ...]:
        return self._read(name, variables, _comma_list) or ()

    def _path(self, name: str, *variables: str) -> Path | None:
        return self._read(name, variables, lambda text: Path(text).expanduser())


def cache_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Where prepared artifacts are kept: `GPTOSS_BENTO_CACHE`, else below `XDG_CACHE_HOME` or `~/.cache`."""
    environ = os.environ if environ is None else environ
    explicit = environ.get("GPTOSS_BENTO_CACHE", "")
    if not _unset(explicit):
        return Path(explicit).expanduser()
    return Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "gptoss-bento"


def selected_profile(environ: Mapping[str, str] | None = None) -> str | None:
    """The profile that `PROFILE` names, or None. Read alone, because service.py needs it before anything else."""
    environ = os.environ if environ is None else environ
    name = environ.get("PROFILE", "").strip()
    return None if _unset(name) else name


def endpoint_ids(environ: Mapping[str, str] | None = None) -> frozenset[str]:
    """The ids accepted under `/v2/{endpoint_id}`; empty means any. Routes are built before all else is read."""
    environ = os.environ if environ is None else environ
    text = environ.get("ENDPOINT_IDS", "")
    return frozenset() if _unset(text) else frozenset(_comma_list(text))


def take_api_keys() -> tuple[str, ...]:
    """The keys of `API_KEY`, else `VLLM_API_KEY` (comma lists); none means an open server.

    vLLM would read the second itself, and check it on some routes and in one form only. So it goes under the first
    name from here on, in this process and in those it starts.
    """
    second = os.environ.pop("VLLM_API_KEY", "")
    if _unset(os.environ.get("API_KEY", "")):
        os.environ["API_KEY"] = second
    text = os.environ["API_KEY"]
    return () if _unset(text) else _comma_list(text)


_EXIT_NOTE = "GPTOSS_BENTO_EXIT_NOTE"


def exit_note_path() -> Path | None:
    """The supervisor's exit note, as its workers inherit it; None in the supervisor itself. See supervision.py."""
    path = os.environ.get(_EXIT_NOTE)
    return Path(path) if path else None


def set_exit_note_path() -> Path:
    """Names the exit note for the workers that this process will start. Creates nothing."""
    path = Path(tempfile.gettempdir()) / f"gptoss-bento-{uuid.uuid4().hex}.json"
    os.environ[_EXIT_NOTE] = str(path)
    return path


def extended(variables: Mapping[str, str]) -> dict[str, str]:
    """This process's variables and these, for a process that it starts."""
    return {**os.environ, **variables}


def apply(variables: Mapping[str, str]) -> None:
    """Puts planned variables into this process, for the libraries that read them there."""
    os.environ.update(variables)


def _unset(text: str) -> bool:
    return text.strip().lower() in _UNSET


def _extra_arguments(text: str) -> tuple[str, ...]:
    """Words for vLLM's parser; those of RESERVED are refused, without their values, which may be keys."""
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise ValueError(f"words as a shell would take them ({error})") from None
    flags = [word.split("=")[0] for word in words if word.startswith("--")]
    if refused := [flag for flag in flags if re.sub("^--(no-)?", "", flag).replace("-", "_") in RESERVED]:
        raise ValueError(f"vLLM options without {', '.join(refused)}, which this server decides")
    return words


def _comma_list(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def _positive_int(text: str) -> int:
    if not text.strip().isdecimal() or int(text) == 0:
        raise ValueError("a whole number of at least 1")
    return int(text)
