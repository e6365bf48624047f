"""All settings for readers: a JSON Schema, RunPod's hub form, the tables of docs/configuration.md; from one source."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.config.variables import RESERVED, VISIBLE_DEVICES, Alias, LibraryVariable, catalogue, own_variables
from gptoss_bento.config.vllm_options import Option, known_options
from gptoss_bento.redaction import is_secret

_KINDS: dict[str, dict[str, Any]] = {
    "switch": {"type": "boolean"},
    "flag": {"type": "boolean"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "count": {"type": ["integer", "string"]},
    "json": {"type": ["object", "array", "string"]},
    "text": {"type": "string"},
}
_LIBRARY_KINDS: dict[str, dict[str, Any]] = {
    "text": {"type": "string"},
    "bool": {"type": "boolean"},
    "digit": {"enum": ["0", "1"]},
    "python_backend": {"type": "string"},
}


def json_schema() -> dict[str, Any]:
    """One property a variable, with type, bounds, default, help and the vLLM option it sets; secrets are write-only."""
    listed = catalogue()
    properties = {**_own_properties(), **_option_properties()}
    properties |= {name: _alias_property(alias) for name, alias in listed.aliases.items()}
    properties |= {name: _library_property(name, variable) for name, variable in listed.library.items()}
    properties |= {name: _removed_property(replacement) for name, replacement in listed.removed.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gptoss-bento",
        "description": "Environment variables of a gptoss-bento service.",
        "type": "object",
        "properties": properties,
    }


def _own_properties() -> dict[str, Any]:
    schema = ServerSettings.model_json_schema(by_alias=False)
    properties: dict[str, Any] = {}
    for field, names in own_variables().items():
        described = {key: value for key, value in schema["properties"][field].items() if key != "title"}
        properties |= {names[0]: {**described, "x-group": "server"}}
        properties |= {name: {**described, "x-group": "server", "x-same-as": names[0]} for name in names[1:]}
    return properties


def _option_properties() -> dict[str, Any]:
    return {option.variable: _option_property(option) for option in _options()}


def _options() -> Iterator[Option]:
    aliases = catalogue().aliases
    return (each for each in known_options().values() if each.name not in RESERVED and each.variable not in aliases)


def _option_property(option: Option) -> dict[str, Any]:
    kind = {"type": ["array", "string"]} if option.many else dict(_KINDS[option.kind])
    if option.choices and not option.many:
        kind["enum"] = list(option.choices)
    if limits := catalogue().limits.get(option.name):
        bounds = {"minimum": limits.least, "exclusiveMinimum": limits.above, "maximum": limits.most}
        kind |= {key: value for key, value in bounds.items() if value is not None}
    default = {"x-vllm-default": json.loads(option.default)} if option.has_default else {}
    return {**kind, **default, "description": option.help, "x-group": "vllm", "x-vllm-option": option.flag}


def _alias_property(alias: Alias) -> dict[str, Any]:
    option = known_options()[alias.option]
    kind = (
        {"type": "integer", "minimum": 1} if alias.type == "positive" else _KINDS["text" if alias.key else option.kind]
    )
    target = f"{option.flag} {alias.key}" if alias.key else option.flag
    return {**kind, "description": alias.help, "x-group": "names", "x-vllm-option": target}


def _library_property(name: str, variable: LibraryVariable) -> dict[str, Any]:
    secret = {"writeOnly": True} if is_secret(name) else {}
    return {**_LIBRARY_KINDS[variable.type], "description": variable.help, "x-group": "libraries", **secret}


def _removed_property(replacement: str | None) -> dict[str, Any]:
    instead = f"Gone. Use {replacement}." if replacement else "Gone, without replacement."
    return {"deprecated": True, "description": instead, "x-group": "removed"}


# RunPod's hub form


def hub_form() -> dict[str, Any]:
    """The settings as RunPod's hub asks for them (its `.runpod/hub.json`): what people change first, then the rest.

    Sent back unchanged it says nothing: only what is this server's own has a default, since a value that is sent wins
    over profile, tier and goal. A switch is a choice of three, because a form sends one that was not touched as false.
    """
    properties = json_schema()["properties"]
    shown = [name for name, each in properties.items() if _is_in_form(name, each)]
    first = [name for name in _FIRST if name in properties]
    ordered = [*first, *(name for name in shown if name not in first)]
    return {
        "title": "gptoss-bento",
        "description": "OpenAI's GPT-OSS models on vLLM: OpenAI API and native jobs.",
        "type": "serverless",
        "category": "language",
        "config": {
            "runsOn": "GPU",
            "containerDiskInGb": 100,
            "env": [{"key": name, "input": _input(name, properties[name], name not in first)} for name in ordered],
        },
    }


_FIRST = (
    "MODEL_NAME",
    "PROFILE",
    "GOAL",
    "MAX_MODEL_LEN",
    "GPU_MEMORY_UTILIZATION",
    "MAX_NUM_SEQS",
    "TENSOR_PARALLEL_SIZE",
    "KV_CACHE_DTYPE",
    "OPENAI_SERVED_MODEL_NAME_OVERRIDE",
    "MAX_CONCURRENCY",
    "API_KEY",
    "HF_TOKEN",
)


def _is_in_form(name: str, described: dict[str, Any]) -> bool:
    """Neither what is gone, nor second names, nor options that vLLM suppresses or this server refuses.

    Nor the lists of GPUs, which are the machine's to say: sent empty they would show none.
    """
    option = known_options().get(name.lower())
    suppressed = option is not None and option.is_suppressed
    refused = "*" in catalogue().refused.get(name.lower(), {})
    return not (
        described.get("deprecated") or "x-same-as" in described or suppressed or refused or name in VISIBLE_DEVICES
    )


def _input(name: str, described: dict[str, Any], advanced: bool) -> dict[str, Any]:
    default = _form_default(name, described)
    found: dict[str, Any] = {
        "type": _form_kind(described, default),
        "name": name.replace("_", " ").capitalize(),
        "description": described["description"],
        "advanced": advanced,
    }
    if choices := described.get("enum") or _switch_choices(described, default):
        unset = [] if default is not None else [{"label": "(not set)", "value": ""}]
        found["options"] = [*unset, *({"label": choice, "value": choice} for choice in choices)]
    return found if default is None else {**found, "default": default}


_OF_PROFILES = ("REQUEST_TIMEOUT",)
"""Settings of ours for which a profile may have a value of its own."""


def _form_default(name: str, described: dict[str, Any]) -> Any:
    default = described.get("default")
    if default in (None, []) or described.get("writeOnly") or name in _OF_PROFILES:
        return None
    return ",".join(default) if isinstance(default, list) else default


def _form_kind(described: dict[str, Any], default: Any) -> str:
    kinds = described.get("type", "string")
    kind = {"integer": "number", "number": "number"}.get(kinds if isinstance(kinds, str) else "", "string")
    return "boolean" if isinstance(default, bool) else kind


def _switch_choices(described: dict[str, Any], default: Any) -> tuple[str, ...]:
    kinds = [described, *described.get("anyOf", ())]
    is_switch = default is None and any(each.get("type") == "boolean" for each in kinds)
    return ("true", "false") if is_switch else ()


# docs/configuration.md

_GENERATED = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(document: str) -> str:
    """The document with its generated tables renewed, between `<!-- generated: NAME -->` and `<!-- end -->`."""
    tables = {
        "server": _server_table,
        "names": _names_table,
        "options": _options_table,
        "libraries": _libraries_table,
        "ignored": _ignored_table,
        "removed": _removed_table,
    }
    return _GENERATED.sub(lambda match: f"{match[1]}{_markdown(tables[match[2]]())}{match[3]}", document)


def _markdown(rows: list[tuple[str, ...]]) -> str:
    head, *body = rows
    lines = [head, ("---",) * len(head), *body]
    return "".join("| " + " | ".join(_cell(cell) for cell in line) + " |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _server_table() -> list[tuple[str, ...]]:
    properties = _own_properties()
    rows: list[tuple[str, ...]] = [("variable", "meaning", "default")]
    for names in own_variables().values():
        described = properties[names[0]]
        others = "".join(f", `{name}`" for name in names[1:])
        rows.append((f"`{names[0]}`{others}", described["description"], _shown(described.get("default"))))
    return rows


def _shown(default: Any) -> str:
    if default is None or default == []:
        return ""
    if isinstance(default, list):
        return f"`{','.join(default)}`"
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def _names_table() -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("variable", "sets", "meaning")]
    for name, alias in catalogue().aliases.items():
        described = _alias_property(alias)
        rows.append((f"`{name}`", f"`{described['x-vllm-option']}`", alias.help))
    return rows


def _options_table() -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("variable", "takes", "vLLM's default", "meaning, in vLLM's words")]
    for option in sorted(_options(), key=lambda each: each.name):
        default = f"`{option.default}`" if option.has_default and len(option.default) <= _LONGEST_DEFAULT else ""
        rows.append((f"`{option.variable}`", _takes(option), default, _first_sentence(option.help)))
    return rows


_LONGEST_DEFAULT = 40
_MOST_CHOICES = 6


def _takes(option: Option) -> str:
    if option.choices and len(option.choices) <= _MOST_CHOICES:
        return ", ".join(f"`{choice}`" for choice in option.choices)
    if option.choices:
        return f"`{option.choices[0]}`, … ({len(option.choices)} values)"
    words = {"switch": "boolean", "flag": "boolean", "int": "integer", "float": "number", "json": "JSON"}
    kind = words.get(option.kind, "number, also `4k`" if option.kind == "count" else "text")
    return f"list of {kind}" if option.many else kind


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.:])\s", text, maxsplit=1)[0].rstrip(":").replace("<", "&lt;")


def _libraries_table() -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("variable", "meaning")]
    return rows + [(f"`{name}`", each.help) for name, each in catalogue().library.items()]


def _ignored_table() -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("variable", "why")]
    return rows + [(f"`{name}`", why) for name, why in catalogue().ignored.items()]


def _removed_table() -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("variable", "instead")]
    return rows + [(f"`{name}`", f"`{use}`" if use else "") for name, use in catalogue().removed.items()]
