"""`sampling_params` of native jobs: which names there are, what each may hold, and what the engine gets. Pure.

Names and ranges are those of vLLM 0.32's completion and chat requests; tests/contract/test_native.py compares them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gptoss_bento.spelling import nearest
from gptoss_bento.strict_json import shown

Check = Callable[[Any], bool]

_INT64 = 2**63


@dataclass(frozen=True)
class Rule:
    """What a value must be: a test, and the words for it in an error."""

    holds: Check
    wanted: str


def is_integer(value: Any) -> bool:
    """A JSON integer; 5.0 is one, true is none."""
    return not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))


def is_number(value: Any) -> bool:
    """A finite JSON number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _integer(low: int, high: int = _INT64 - 1, words: str = "") -> Rule:
    return Rule(lambda value: is_integer(value) and low <= value <= high, words or f"an integer of at least {low}")


def _number(low: float, high: float) -> Rule:
    return Rule(lambda value: is_number(value) and low <= value <= high, f"a number from {low:g} to {high:g}")


def _list_of(item: Check, words: str) -> Rule:
    return Rule(lambda value: isinstance(value, list) and all(map(item, value)), f"a list of {words}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_stop(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_token_id(value: Any) -> bool:
    return is_integer(value) and 0 <= value < _INT64


def _is_bias(value: Any) -> bool:
    return isinstance(value, dict) and all(key.isdecimal() and is_number(item) for key, item in value.items())


_BOOL = Rule(lambda value: isinstance(value, bool), "true or false")
_TEXT = Rule(_is_text, "a string")
_OBJECT = Rule(lambda value: isinstance(value, dict), "an object")
_ANY = Rule(lambda _: True, "")

_COMMON: dict[str, Rule] = {
    "model": _TEXT,
    "n": _integer(1),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "repetition_penalty": Rule(lambda value: is_number(value) and value > 0, "a number above 0"),
    "temperature": _number(0, 2),
    "top_p": Rule(lambda value: is_number(value) and 0 < value <= 1, "a number above 0 and up to 1"),
    "top_k": _integer(-1, words="an integer of at least 1, or 0 or -1 for off"),
    "min_p": _number(0, 1),
    "use_beam_search": _BOOL,
    "length_penalty": Rule(is_number, "a number"),
    "stop": Rule(
        lambda value: _is_stop(value) or (isinstance(value, list) and all(map(_is_stop, value))),
        "a string or a list of strings, none of them empty",
    ),
    "stop_token_ids": _list_of(_is_token_id, "token ids"),
    "ignore_eos": _BOOL,
    "max_tokens": _integer(1),
    "min_tokens": _integer(0),
    "skip_special_tokens": _BOOL,
    "spaces_between_special_tokens": _BOOL,
    "truncate_prompt_tokens": _integer(-1),
    "truncation_side": Rule(lambda value: value in ("left", "right"), '"left" or "right"'),
    "seed": _integer(-_INT64, words="a 64-bit integer"),
    "include_stop_str_in_output": _BOOL,
    "prompt_logprobs": _integer(0),
    "logit_bias": Rule(_is_bias, "an object of numbers by token id"),
    "bad_words": _list_of(_is_text, "strings"),
    "allowed_token_ids": _list_of(_is_token_id, "token ids"),
    "structured_outputs": _OBJECT,
    "thinking_token_budget": _integer(-1),
    "echo": _BOOL,
    "user": _TEXT,
    "response_format": _OBJECT,
    "add_special_tokens": _BOOL,
    "priority": _integer(-_INT64, words="a 64-bit integer"),
    "cache_salt": _TEXT,
    "vllm_xargs": _OBJECT,
    "stream_options": _OBJECT,
    "logprob_token_ids": _list_of(_is_token_id, "token ids"),
    "return_tokens_as_token_ids": _BOOL,
    "repetition_detection": _OBJECT,
    "session_id": _TEXT,
}
_COMPLETION: dict[str, Rule] = {
    "logprobs": _integer(0),
    "suffix": _TEXT,
}
_CHAT: dict[str, Rule] = {
    # OpenAI's chat has a switch here and the number in top_logprobs; worker-vllm took the number.
    "logprobs": Rule(lambda value: isinstance(value, bool) or (is_integer(value) and value >= 0), "an integer from 0"),
    "top_logprobs": _integer(0),
    "max_completion_tokens": _integer(1),
    "tools": _list_of(lambda item: isinstance(item, dict), "objects"),
    "tool_choice": Rule(lambda value: isinstance(value, str | dict), "a string or an object"),
    "parallel_tool_calls": _BOOL,
    "reasoning_effort": _TEXT,
    "include_reasoning": _BOOL,
    "add_generation_prompt": _BOOL,
    "continue_final_message": _BOOL,
    "chat_template": _TEXT,
    "chat_template_kwargs": _OBJECT,
    "documents": _list_of(lambda item: isinstance(item, dict), "objects"),
    "mm_processor_kwargs": _OBJECT,
    "media_io_kwargs": _OBJECT,
}
# vLLM's names of former years, and what became of them.
_GUIDED = {"guided_json": "json", "guided_regex": "regex", "guided_choice": "choice", "guided_grammar": "grammar"}
_OWN: dict[str, Rule] = {
    "best_of": _ANY,
    "early_stopping": _ANY,
    "detokenize": Rule(lambda value: value is True, "true, a job's output is text"),
    "extra_args": _OBJECT,
    **dict.fromkeys(_GUIDED, _ANY),
}

FORWARDED = {"completion": frozenset(_COMMON | _COMPLETION), "chat": frozenset(_COMMON | _CHAT)}
"""The names that reach the engine as they are, by kind of request."""


def documented() -> dict[str, str]:
    """Every name that `sampling_params` may hold, and what its value must be, in words."""
    of_chats = {name: f"{rule.wanted}; for messages" for name, rule in _CHAT.items()}
    of_prompts = {name: f"{rule.wanted}; for prompt" for name, rule in _COMPLETION.items()}
    both = {"logprobs": _COMPLETION["logprobs"].wanted}
    named = {name: rule.wanted for name, rule in (_COMMON | _OWN).items() if rule.wanted}
    return named | of_prompts | of_chats | both


def engine_parameters(given: Mapping[str, Any], *, chat: bool, stream: bool, default_max_tokens: int) -> dict[str, Any]:
    """The fields of the engine's request that `sampling_params` stand for. A null means: not given.

    Raises:
        ValueError: all that is wrong, a sentence for each problem, with field and value.
    """
    values = {name: value for name, value in given.items() if value is not None}
    problems = [*_single_problems(values, chat), *_joint_problems(values, chat, stream, default_max_tokens)]
    if problems:
        raise ValueError(" ".join(problems))
    return _translated(values, chat, default_max_tokens)


def _rules(chat: bool) -> dict[str, Rule]:
    return _COMMON | (_CHAT if chat else _COMPLETION) | _OWN


def _single_problems(values: Mapping[str, Any], chat: bool) -> list[str]:
    rules = _rules(chat)
    problems = []
    for name, value in values.items():
        if rule := rules.get(name):
            if not rule.holds(value):
                problems.append(f"{name} must be {rule.wanted}, got {shown(value)}.")
        else:
            problems.append(_unknown(name, value, chat))
    return problems


def _unknown(name: str, value: Any, chat: bool) -> str:
    if name in (_COMPLETION if chat else _CHAT):
        return f"{name} is for {'prompt' if chat else 'messages'} jobs only, got {shown(value)}."
    near = nearest(name, _rules(chat))
    hint = f" Did you mean {near}?" if near else ""
    return f"{shown(name)[1:-1]} is not a sampling parameter, got {shown(value)}.{hint}"


def _joint_problems(values: Mapping[str, Any], chat: bool, stream: bool, default_max_tokens: int) -> list[str]:
    problems = []
    n, beams = values.get("n", 1), values.get("use_beam_search") is True
    if is_integer(n) and n > 1 and _is_zero(values.get("temperature")) and not beams:
        problems.append(f"n must be 1 when temperature is 0, got {shown(n)}.")
    if "best_of" in values and not (is_integer(values["best_of"]) and values["best_of"] == n):
        problems.append(f"best_of was removed from vLLM; leave it out, got {shown(values['best_of'])}.")
    if values.get("early_stopping", False) is not False:
        problems.append(f"early_stopping was removed from vLLM; leave it out, got {shown(values['early_stopping'])}.")
    if beams and stream:
        problems.append("use_beam_search must be false when stream is true, got true.")
    if limit := _min_tokens_problem(values, chat, default_max_tokens):
        problems.append(limit)
    constraints = sorted(name for name in (*_GUIDED, "structured_outputs", "response_format") if name in values)
    if len(constraints) > 1 and set(constraints) & set(_GUIDED):
        got = ", ".join(f"{name} {shown(values[name], 30)}" for name in constraints)
        problems.append(f"Only one of {', '.join(constraints)} may be given, got {got}.")
    return problems


def _is_zero(value: Any) -> bool:
    return is_number(value) and value == 0


def _min_tokens_problem(values: Mapping[str, Any], chat: bool, default_max_tokens: int) -> str | None:
    least, most = values.get("min_tokens", 0), _max_tokens(values, chat, default_max_tokens)
    if is_integer(least) and is_integer(most) and least > most:
        return f"min_tokens must be at most max_tokens, which is {most}, got {shown(least)}."
    return None


def _max_tokens(values: Mapping[str, Any], chat: bool, default: int) -> Any:
    own = values.get("max_tokens", default)
    return values.get("max_completion_tokens", own) if chat else own


def _translated(values: Mapping[str, Any], chat: bool, default_max_tokens: int) -> dict[str, Any]:
    rules = _rules(chat)
    body = {name: _exact(value) for name, value in values.items() if name in rules and name not in _OWN}
    if not {"max_tokens", "max_completion_tokens"} & body.keys():
        body["max_tokens"] = default_max_tokens
    for old, kind in _GUIDED.items():
        if old in values:
            body["structured_outputs"] = {kind: values[old]}
    if "extra_args" in values:
        body["vllm_xargs"] = {**values["extra_args"], **body.get("vllm_xargs", {})}
    if chat and "logprobs" in body and not isinstance(body["logprobs"], bool):
        body.setdefault("top_logprobs", body["logprobs"])
        body["logprobs"] = True
    return body


def _exact(value: Any) -> Any:
    """5.0 as 5, where the engine wants an integer; a number stays one for it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
