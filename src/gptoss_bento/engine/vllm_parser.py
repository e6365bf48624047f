"""vLLM's own parser of `vllm serve`: it reads the arguments, and lists the options and variables."""

from __future__ import annotations

import json
from argparse import Action, ArgumentParser, BooleanOptionalAction
from typing import Any, NoReturn

from gptoss_bento.errors import ConfigurationError


def serve_parser() -> ArgumentParser:
    """The parser of `vllm serve`. What it refuses is a ConfigurationError instead of the end of the process."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Parser(FlexibleArgumentParser):  # type: ignore[misc]
        def error(self, message: str) -> NoReturn:
            raise ConfigurationError(f"vLLM does not take these arguments: {message}")

    parser: ArgumentParser = make_arg_parser(Parser())
    return parser


def describe_options() -> list[dict[str, Any]]:
    """What vLLM's own parser says of its options, as rows for vllm_options.json."""
    return [_describe(action) for action in serve_parser()._actions if action.option_strings and action.dest != "help"]


def _describe(action: Action) -> dict[str, Any]:
    return {
        "name": action.dest,
        "flag": next(flag for flag in action.option_strings if flag.startswith("--")),
        "kind": _kind(action),
        "many": _many(action),
        "choices": [str(choice) for choice in action.choices or () if choice is not None],
        "help": " ".join((action.help or "").split()),
        "flags": [flag for flag in action.option_strings if not flag.startswith("--no-") or _kind(action) != "switch"],
        "default": _default_text(action),
    }


def _default_text(action: Action) -> str:
    """The default for readers: plain values only, because objects differ from start to start."""
    value = action.default
    return json.dumps(value) if isinstance(value, str | int | float | bool | list | dict) else ""


def describe_variables() -> list[str]:
    """The environment variables that vLLM reads, for vllm_variables.json."""
    from vllm import envs

    return sorted(envs.environment_variables)


def describe_unhashed_variables() -> list[str]:
    """Those that are no part of the key under which vLLM keeps what is compiled, for vllm_unhashed_variables.json."""
    from vllm import envs

    return sorted(envs.environment_variables.keys() - envs.compile_factors().keys())


def describe_parsers() -> dict[str, list[str]]:
    """The names of vLLM's parsers by the option that takes them, for vllm_parsers.json."""
    from vllm.reasoning import ReasoningParserManager
    from vllm.tool_parsers import ToolParserManager

    return {
        "tool_call_parser": sorted(ToolParserManager.list_registered()),
        "reasoning_parser": sorted(ReasoningParserManager.list_registered()),
    }


def _many(action: Action) -> str:
    """How several values are written: `repeat` (--x a --x b), `words` (--x a b), or empty for one value."""
    if type(action).__name__ == "_AppendAction":
        return "repeat"
    return "words" if action.nargs in ("+", "*") else ""


def _kind(action: Action) -> str:
    """vLLM's parser types are functions; their names, or what they wrap, show what they take."""
    if isinstance(action, BooleanOptionalAction):
        return "switch"
    if type(action).__name__ == "_StoreTrueAction":
        return "flag"
    function = _unwrapped(action.type)
    name = getattr(function, "__name__", "str")
    if name in ("int", "float"):
        return name
    if name.startswith("human_readable_int"):
        return "count"
    return "json" if name in ("loads", "parse_dataclass", "union_dict_and_str") else "text"


def _unwrapped(function: Any) -> Any:
    """`optional_type(parse_type(int))` → `int`."""
    cells = getattr(function, "__closure__", None) or ()
    inner = [cell.cell_contents for cell in cells if callable(cell.cell_contents)]
    return _unwrapped(inner[0]) if inner and function.__name__ in ("_optional_type", "_parse_type") else function
