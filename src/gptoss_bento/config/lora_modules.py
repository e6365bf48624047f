"""`LORA_MODULES`: each adapter has a name and a path. vLLM would say so in its own words, after the imports.

Source: LoRAParserAction and LoRAModulePath of vLLM 0.32 (entrypoints/launchers/cli_args.py, openai/models/protocol.py).
"""

from __future__ import annotations

import json
from typing import Any

_NEEDED = ("name", "path")
_FIELDS = (*_NEEDED, "base_model_name", "is_3d_lora_weight")
_EACH = 'adapters as name=path or {"name": …, "path": …}'


def problem(option: str, value: Any) -> str | None:
    """What is allowed, if the option is this one and an adapter has no name or no path; else None."""
    if option != "lora_modules":
        return None
    wrong = [found for item in value if (found := _problem(item))]
    return f"{_EACH}; {'; '.join(wrong)}" if wrong else None


def _problem(item: Any) -> str | None:
    if isinstance(item, str) and not item.lstrip().startswith("{"):
        name, _, path = item.partition("=")
        return None if name.strip() and path.strip() else _lacking(name or item, "name" if path else "path")
    try:
        fields = json.loads(item) if isinstance(item, str) else item
    except ValueError:
        return f"{item!r} is not valid JSON"
    return _wrong_fields(fields) if isinstance(fields, dict) else f"{item!r} is no adapter"


def _wrong_fields(fields: dict[str, Any]) -> str | None:
    for needed in _NEEDED:
        if not isinstance(fields.get(needed), str) or not fields[needed].strip():
            return _lacking(str(fields.get("name") or "an adapter"), needed)
    unknown = sorted(set(fields) - set(_FIELDS))
    return (
        f"{fields['name']} has unknown fields: {', '.join(unknown)}; known: {', '.join(_FIELDS)}" if unknown else None
    )


def _lacking(name: str, what: str) -> str:
    return f"{name} has no {what}"
