"""Values that vLLM looks up by name: its parsers, as recorded, and executors that need a package of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

from gptoss_bento.spelling import nearest

# With these an operator brings parsers of other names.
_PLUGINS = {"tool_call_parser": "tool_parser_plugin", "reasoning_parser": "reasoning_parser_plugin"}
_RAY_OPTIONS = ("distributed_executor_backend", "data_parallel_backend")
_RAY_IS_MISSING = "mp, the default; or install ray: pip install 'ray[cgraph]'"  # as vLLM's ray_executor.py asks for it


@cache
def parsers() -> Mapping[str, tuple[str, ...]]:
    """The parsers that vLLM has, by the option that names one; recorded, as its options are."""
    recorded = json.loads(files(__package__).joinpath("vllm_parsers.json").read_text())
    return {option: tuple(names) for option, names in recorded.items()}


def problem(option: str, value: Any, said: Collection[str] = ()) -> str | None:
    """What is allowed, if the value names nothing that this vLLM has; else None.

    Args:
        said: all options that the operator set, among which a plugin may be.
    """
    if option in _RAY_OPTIONS and value == "ray" and not has_ray():
        return _RAY_IS_MISSING
    if option == "structured_outputs_config" and isinstance(value, dict):
        option, value, said = "reasoning_parser", value.get("reasoning_parser") or "", {*said, *value}
    if not value or option not in parsers() or _PLUGINS[option] in said:
        return None
    return _parser_problem(option, str(value))


def _parser_problem(option: str, name: str) -> str | None:
    known = parsers()[option]
    close = nearest(name, known)
    hint = f"; did you mean {close}?" if close else ""
    return None if name in known else f"a {option.replace('_', ' ')} of vLLM: {', '.join(known)}{hint}"


def has_ray(find: Callable[[str], Any] = find_spec) -> bool:
    """Whether the package is installed; it is no part of the locks."""
    return find("ray") is not None
