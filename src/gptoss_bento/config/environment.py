"""Reads what the operator says in environment variables. Text goes in, checked `Settings` come out.

The names are those worker-vllm users have: any vLLM option in upper case (`MAX_MODEL_LEN`), the worker's other names
for them, and its own settings; `config/variables.py` lists them all. If a value has several sources, the first
wins: VLLM_EXTRA_ARGS, other names, plain names, VLLM_CONFIG_FILE. All problems are reported together.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from gptoss_bento.config import (
    config_file,
    extra_args,
    hub_home,
    lora_modules,
    manifest,
    quotes,
    tool_server,
    vllm_names,
)
from gptoss_bento.config.key_sources import key_sources
from gptoss_bento.config.manifest import Manifest
from gptoss_bento.config.settings import ServerSettings, Settings, is_unset
from gptoss_bento.config.tool_choices import ToolChoices
from gptoss_bento.config.tool_settings import read_choices
from gptoss_bento.config.variables import (
    RESERVED,
    VISIBLE_DEVICES,
    Catalogue,
    Limits,
    catalogue,
    own_variables,
    typos,
    unset_library_variables,
)
from gptoss_bento.config.vllm_options import Option, known_options, parse_bool
from gptoss_bento.errors import ArtifactError, ConfigurationError
from gptoss_bento.hardware.probe import VisibleDevices
from gptoss_bento.redaction import is_secret

# Options that have fields in Settings and in the plan.
_APART = ("model", "revision", "tokenizer", "served_model_name")

_OLD_COUNTS = re.compile(r"\w+=\d+(,\w+=\d+)*")  # image=1,video=2


@dataclass(frozen=True)
class _Sourced:
    """A value and the variable it came from."""

    value: Any
    origin: str


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Reads and checks the variables.

    Raises:
        ConfigurationError: one line per variable that is wrong, naming it, its value and what is allowed.
    """
    return _Reader(os.environ if environ is None else environ).settings()


class _Reader:
    """Collects values, complaints and warnings over one pass."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._catalogue: Catalogue = catalogue()
        self._problems: list[str] = []
        self._warnings: list[str] = []
        self._explicit: frozenset[str] = frozenset()

    def settings(self) -> Settings:
        self._set_quoted_aside()
        server = self._server()
        self._problems.extend(key_sources(self._environ).problems)
        explicit = {**self._config_file(), **self._plain(), **self._aliases(), **self._extra_arguments()}
        self._explicit = frozenset(explicit)
        explicit = {name: each for name, each in explicit.items() if self._is_sensible(name, each)}
        derived = self._derived(server, explicit.get("download_dir"))
        self._check_library_variables()
        servers = self._tool_servers(explicit)
        tools = self._tools(server, servers)
        self._warn_of_names()
        if self._problems:
            raise ConfigurationError("\n".join(self._problems))
        return Settings(
            server=server,
            model_name=_text(explicit.get("model")),
            model_revision=_text(explicit.get("revision")),
            tokenizer=_text(explicit.get("tokenizer")),
            served_model_names=tuple(explicit["served_model_name"].value) if "served_model_name" in explicit else (),
            cache_dir=cache_dir(self._environ),
            vocabulary_dir=self._folder("TIKTOKEN_ENCODINGS_BASE"),
            bento_models=self._folder("BENTOML_HF_CACHE_DIR"),
            visible_devices=visible_devices(self._environ),
            tools=tools,
            engine={name: each.value for name, each in explicit.items() if name not in (*_APART, "tool_server")}
            | ({"tool_server": servers} if servers not in ("", tool_server.DEMO) else {}),
            origins=self._origins(explicit, server),
            derived=derived,
            warnings=tuple(self._warnings),
            process=self._process(),
        )

    @staticmethod
    def _tool_servers(explicit: Mapping[str, _Sourced]) -> str:
        return tool_server.as_vllm_reads(explicit["tool_server"].value) if "tool_server" in explicit else ""

    def _tools(self, server: ServerSettings, servers: str) -> ToolChoices:
        """Which tools run here; `demo` of vLLM's option means them."""
        if allowed := tool_server.backend_problem(servers, self._environ):
            self._complain(tool_server.PYTHON_BACKEND, self._environ[tool_server.PYTHON_BACKEND], allowed)
        if effect := tool_server.without_effect(servers, self._environ):
            self._warnings.append(f"{effect}.")
        read = read_choices(server, self._environ, is_demo=servers == tool_server.DEMO)
        for each in read.problems:
            self._complain(each.variable, each.value, each.allowed)
        self._warnings += [f"{each}." for each in read.warnings]
        return read.choices

    def _set_quoted_aside(self) -> None:
        """Complains of values in quotes once, and reads the rest without them."""
        if quoted := quotes.quoted_variables(self._environ):
            for name in quoted:
                self._complain(name, self._environ[name], quotes.ALLOWED)
            self._environ = {name: text for name, text in self._environ.items() if name not in quoted}

    def _process(self) -> Mapping[str, str]:
        """What this process's variables say; `apply_derived` takes those away that say nothing."""
        unset = unset_library_variables(self._environ)
        return {name: text for name, text in self._environ.items() if name not in unset} if unset else self._environ

    def _origins(self, explicit: Mapping[str, _Sourced], server: ServerSettings) -> dict[str, str]:
        return {name: each.origin for name, each in explicit.items()} | ({"goal": "GOAL"} if server.goal else {})

    # This server's own settings

    def _server(self) -> ServerSettings:
        texts = _own_texts(self._environ)
        if "HOST" not in texts and not is_unset(self._environ.get("HOST", "")):
            self._warnings.append("HOST is not an IP address or localhost; it is not used.")
        try:
            return ServerSettings.model_validate(texts)
        except ValidationError as error:
            for each in error.errors():
                name = str(each["loc"][0])
                self._complain(name, texts.get(name, ""), _allowed(dict(each)))
            return ServerSettings()

    # vLLM's options, from the lowest source to the highest

    def _config_file(self) -> dict[str, _Sourced]:
        text = self._environ.get("VLLM_CONFIG_FILE", "")
        if is_unset(text):
            return {}
        try:
            content = yaml.safe_load(Path(text).expanduser().read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            self._complain("VLLM_CONFIG_FILE", text, f"a YAML file that can be read ({reason})")
            return {}
        if not isinstance(content, dict):
            self._complain("VLLM_CONFIG_FILE", text, "a YAML file with one `option: value` a line")
            return {}
        read = config_file.read_options(content, RESERVED)
        self._problems += [f"VLLM_CONFIG_FILE: {each}" for each in read.unknown]
        self._warnings += [f"VLLM_CONFIG_FILE: {each}." for each in read.warnings]
        for each in read.wrong:
            self._complain(f"VLLM_CONFIG_FILE: {each.key}", each.text, each.allowed)
        return {name: _Sourced(value, "VLLM_CONFIG_FILE") for name, value in read.values.items()}

    def _plain(self) -> dict[str, _Sourced]:
        found = {}
        for option in known_options().values():
            text = self._environ.get(option.variable, "")
            if option.name in RESERVED or option.variable in self._catalogue.aliases or self._is_unset(option, text):
                continue
            value = self._parse(option.parse, option.variable, self._renamed(option, text))
            if value not in (None, "", [], ()):
                found[option.name] = _Sourced(value, option.variable)
        return found

    def _is_unset(self, option: Option, text: str) -> bool:
        if text.strip() == "0" and option.name in self._catalogue.zero_is_unset:
            return True
        return is_unset(text) and text.lower() not in option.choices

    def _renamed(self, option: Option, text: str) -> str:
        """The text as vLLM spells it today."""
        if option.name == "limit_mm_per_prompt" and _OLD_COUNTS.fullmatch(text.strip()):
            return json.dumps({key: int(count) for key, _, count in (part.partition("=") for part in text.split(","))})
        new = self._catalogue.renamed_values.get(option.name, {}).get(text.strip().lower())
        if new:
            self._warnings.append(f"{option.variable}: {text} is called {new} now; {new} is used.")
        return new or text

    def _aliases(self) -> dict[str, _Sourced]:
        found: dict[str, _Sourced] = {}
        for name, alias in self._catalogue.aliases.items():
            text = self._environ.get(name, "")
            option = known_options()[alias.option]
            if is_unset(text) or alias.key or alias.option in found or (alias.weak and self._is_set(option)):
                continue
            value = self._parse(option.parse, name, text)
            if value not in (None, "", [], ()):
                found[alias.option] = _Sourced(not value if alias.inverted else value, name)
        return found | self._speculation()

    def _is_set(self, option: Option) -> bool:
        return not self._is_unset(option, self._environ.get(option.variable, ""))

    def _speculation(self) -> dict[str, _Sourced]:
        """One structured option out of several variables; the whole option, if set, wins over them."""
        parts: dict[str, Any] = {}
        names = []
        for name, alias in self._catalogue.aliases.items():
            text = self._environ.get(name, "")
            if not alias.key or is_unset(text):
                continue
            value = self._parse(_positive_int, name, text) if alias.type == "positive" else text.strip()
            if value is not None:
                parts = {**alias.implies, **parts, alias.key: value}
                names.append(name)
        if not names:
            return {}
        if self._is_set(known_options()["speculative_config"]):
            self._warnings.append(f"SPECULATIVE_CONFIG is set, so {', '.join(names)} is not used.")
            return {}
        if parts.get("model") == "[ngram]":  # as older vLLM spelled it
            parts = {**parts, "method": "ngram"}
            del parts["model"]
        return {"speculative_config": _Sourced(parts, " and ".join(names))}

    def _extra_arguments(self) -> dict[str, _Sourced]:
        text = self._environ.get("VLLM_EXTRA_ARGS", "")
        if is_unset(text):
            return {}
        try:
            values = extra_args.parse(shlex.split(text), RESERVED | {"model"})
        except ValueError as error:
            self._complain("VLLM_EXTRA_ARGS", text, str(error))
            return {}
        return {name: _Sourced(value, "VLLM_EXTRA_ARGS") for name, value in values.items()}

    # Checks

    def _parse(self, parse: Callable[[str], Any], variable: str, text: str) -> Any:
        try:
            return parse(text.strip() if parse is _positive_int else text)
        except ValueError as error:
            self._complain(variable, text, str(error))
            return None

    def _complain(self, variable: str, text: str, allowed: str) -> None:
        shown = "its value" if is_secret(variable) or not text else f"the value {text!r}"
        self._problems.append(f"{variable}: {shown} is not allowed; allowed: {allowed}")

    def _is_sensible(self, name: str, explicit: _Sourced) -> bool:
        """Whether the value can be used; says why not, and warns of values that people regret."""
        key = explicit.value.lower() if isinstance(explicit.value, str) else explicit.value
        if not isinstance(key, str | bool):
            key = None
        limits = self._catalogue.limits.get(name)
        if limits and isinstance(explicit.value, int | float) and not limits.holds(explicit.value):
            self._complain(explicit.origin, str(explicit.value), str(limits))
            return False
        if reason := self._refusal(name, key, explicit.value):
            self._complain(explicit.origin, _shown(explicit.value), reason)
            return False
        cautions = self._catalogue.cautions.get(name, {})
        if caution := cautions.get(key) or cautions.get("*"):
            self._warnings.append(f"{explicit.origin}: {caution}.")
        return True

    def _refusal(self, name: str, key: str | bool | None, value: Any) -> str | None:
        """What would be right, if the value is one of those that are refused or cannot work."""
        refused = self._catalogue.refused.get(name, {})
        if "*" in refused and json.dumps(value) != known_options()[name].default:
            return refused["*"]
        unusable = vllm_names.problem(name, value, self._explicit) or lora_modules.problem(name, value)
        return refused.get(key) or unusable or tool_server.problem(name, value)

    def _check_library_variables(self) -> None:
        for name, variable in self._catalogue.library.items():
            text = self._environ.get(name, "")
            if not is_unset(text) and (allowed := _misread(variable.type, text)):
                self._complain(name, text, allowed)

    def _folder(self, variable: str) -> Path | None:
        text = self._environ.get(variable, "")
        return None if is_unset(text) else Path(text).expanduser()

    def _derived(self, server: ServerSettings, weights: _Sourced | None) -> dict[str, tuple[str, str]]:
        if weights:
            try:
                return hub_home.weights_folder(self._environ, weights.value, weights.origin)
            except ValueError as error:
                self._complain(weights.origin, weights.value, str(error))
                return {}
        folder = cache_dir(self._environ)
        return hub_home.derived_variables(self._environ, server.base_path, folder, self._manifest())

    def _manifest(self) -> Manifest | None:
        try:
            return manifest.read(cache_dir(self._environ))
        except ArtifactError as error:
            self._problems.append(str(error))
            return None

    def _warn_of_names(self) -> None:
        for name, replacement in self._catalogue.removed.items():
            if not is_unset(self._environ.get(name, "")):
                instead = f"; use {replacement}" if replacement else " and has no replacement"
                self._warnings.append(f"{name} is gone from vLLM{instead}. It is not used.")
        for name, meant in typos(self._environ).items():
            self._warnings.append(f"{name} is unknown; did you mean {meant}? It is not used.")


def _allowed(error: Mapping[str, Any]) -> str:
    """What pydantic would have accepted, with all of the setting's bounds."""
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    field = next(field for field, names in own_variables().items() if error["loc"][0] in names)
    described = ServerSettings.model_json_schema(by_alias=False)["properties"][field]
    kinds = [described, *described.get("anyOf", ())]
    kind = next((each for each in kinds if each.get("type") in ("integer", "number")), None)
    if kind is None:
        return str(error.get("ctx", {}).get("expected") or error["msg"])
    limits = Limits(least=kind.get("minimum"), above=kind.get("exclusiveMinimum"), most=kind.get("maximum"))
    noun = "a whole number" if kind["type"] == "integer" else "a number"
    return f"{noun} of {limits}" if limits.least is not None else f"{noun} {limits}".strip()


def _misread(kind: str, text: str) -> str | None:
    """What is allowed, if a library would misread the text or it is dangerous; else None."""
    if kind == "digit" and text.strip() not in ("0", "1"):
        return "0 or 1"
    if kind == "python_backend" and text.strip() != "docker":
        return "nothing; PYTHON_TOOL says whether code that the model wrote runs here, and it always is confined"
    if kind == "bool":
        try:
            parse_bool(text)
        except ValueError as error:
            return str(error)
    return None


def _own_texts(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of our own settings that are set. Shells and conda misuse HOST: that does not count."""
    names = [name for names in own_variables().values() for name in names]
    texts = {name: environ[name].strip() for name in names if not is_unset(environ.get(name, ""))}
    if not _is_address(texts.get("HOST", "localhost")):
        del texts["HOST"]
    return texts


def _is_address(text: str) -> bool:
    try:
        return text == "localhost" or bool(ip_address(text))
    except ValueError:
        return False


def _text(explicit: _Sourced | None) -> str | None:
    return None if explicit is None else str(explicit.value).strip()


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def cache_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Where prepared artifacts are kept: `GPTOSS_BENTO_CACHE`, else below `XDG_CACHE_HOME` or `~/.cache`."""
    environ = os.environ if environ is None else environ
    explicit = environ.get("GPTOSS_BENTO_CACHE", "")
    if not is_unset(explicit):
        return Path(explicit).expanduser()
    return Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "gptoss-bento"


def visible_devices(environ: Mapping[str, str]) -> VisibleDevices:
    """What limits the GPUs of a process with these variables. An empty text shows none; no text shows all."""
    return VisibleDevices(*(environ.get(name) for name in VISIBLE_DEVICES))


def server_settings(environ: Mapping[str, str] | None = None) -> ServerSettings:
    """This server's own settings as far as they are valid, for service.py. The start complains of the rest."""
    texts = _own_texts(os.environ if environ is None else environ)
    try:
        return ServerSettings.model_validate(texts)
    except ValidationError as error:
        wrong = {str(each["loc"][0]) for each in error.errors()}
        return ServerSettings.model_validate({name: text for name, text in texts.items() if name not in wrong})


def tls_settings(environ: Mapping[str, str] | None = None) -> dict[str, str | int]:
    """vLLM's SSL_* variables under BentoML's names, because BentoML runs the HTTP server. Empty: plain HTTP."""
    environ = os.environ if environ is None else environ
    names = ("certfile", "keyfile", "ca_certs", "cert_reqs", "ciphers")
    texts = {name: environ.get(f"SSL_{name.upper()}", "").strip() for name in names}
    return {name: int(text) if text.isdecimal() else text for name, text in texts.items() if not is_unset(text)}


def _positive_int(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise ValueError("a whole number of at least 1")
    return int(text)
