"""Fields that vLLM does not read for GPT-OSS, as fields that it does. Pure.

Each function returns fields to set; None takes a field away. The body itself is never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import Any, TypeGuard

from gptoss_bento.http.errors import FieldError
from gptoss_bento.http.fields.included import included, no_log_probabilities
from gptoss_bento.http.fields.served_model import ServedModel
from gptoss_bento.http.fields.tool_choice import allowed_tools
from gptoss_bento.http.fields.verbosity import verbosity
from gptoss_bento.http.paths import CHAT, CHAT_BATCH, COMPLETIONS, COUNT_TOKENS, MESSAGES, RESPONSES, TOKENIZE
from gptoss_bento.strict_json import shown, shown_name

Changes = dict[str, Any]

_EFFORT = "reasoning_effort"
_EFFORT_OF: Mapping[str, tuple[str, ...]] = {
    CHAT: (_EFFORT,),
    CHAT_BATCH: (_EFFORT,),
    TOKENIZE: (_EFFORT,),
    RESPONSES: ("reasoning", "effort"),
    MESSAGES: ("output_config", "effort"),
    COUNT_TOKENS: ("output_config", "effort"),
}
# Variables of templates which say what the Harmony format does anyway.
_HARMLESS: Mapping[str, Any] = {
    "add_generation_prompt": True,
    "continue_final_message": False,
    "enable_thinking": True,
    "thinking": True,
}
_GUIDED = {
    "guided_json": "json",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
    "guided_whitespace_pattern": "whitespace_pattern",
}


def template_arguments(path: str, body: Mapping[str, Any]) -> Changes:
    """`chat_template_kwargs`: the effort as the route's own field. There is no template for the rest.

    Raises:
        FieldError: it has a variable that the Harmony format does not have, or two efforts.
    """
    given = body.get("chat_template_kwargs")
    if not isinstance(given, dict):
        return {}
    for name, value in given.items():
        if name != _EFFORT and value is not None and not _is_harmless(name, value):
            where = f"chat_template_kwargs.{shown_name(name)}"
            reason = f"GPT-OSS's prompts are written by the Harmony format, which knows {_EFFORT} alone"
            raise FieldError(where, f"{where} would have no effect: {reason}.")
    effort = _effort(path, body, given[_EFFORT]) if given.get(_EFFORT) is not None else {}
    return {"chat_template_kwargs": None, **effort}


def _is_harmless(name: str, value: Any) -> bool:
    return name in _HARMLESS and value is _HARMLESS[name]


def _effort(path: str, body: Mapping[str, Any], effort: Any) -> Changes:
    *outer, last = _EFFORT_OF[path]
    holder = body.get(outer[0]) if outer else body
    if holder is not None and not isinstance(holder, Mapping):
        return {}  # the engine refuses it
    said = (holder or {}).get(last)
    if said is not None and said != effort:
        name = ".".join(_EFFORT_OF[path])
        where = f"chat_template_kwargs.{_EFFORT}"
        raise FieldError(where, f"{where} is {shown(effort)}, and {name} is {shown(said)}: give one.")
    return {outer[0]: {**(holder or {}), last: effort}} if outer else {last: effort}


def constraints(path: str, body: Mapping[str, Any]) -> Changes:
    """`guided_json` and its kin, which vLLM has removed, as `structured_outputs`.

    Raises:
        FieldError: it comes with another constraint.
    """
    given = {old: body[old] for old in _GUIDED if body.get(old) is not None}
    if not given:
        return {}
    kinds = [old for old in given if old != "guided_whitespace_pattern"]
    others = [] if body.get("structured_outputs") is None else ["structured_outputs"]
    others += ["response_format"] if _is_constraint(body.get("response_format")) else []
    others += [f"{outer}.format" for outer in ("text", "output_config") if _has_format(body.get(outer))]
    if len(kinds) + len(others) != 1 or not kinds:
        found = ", ".join([*given, *others])
        raise FieldError(next(iter(given)), f"One constraint can be given, got {found}.")
    gone = dict.fromkeys(given)
    if path == MESSAGES:
        holder = body.get("output_config") or {}
        schema = {"type": "json_schema", "schema": given["guided_json"]}
        # The engine refuses a holder of another shape.
        return {**gone, "output_config": {**holder, "format": schema}} if isinstance(holder, Mapping) else {}
    constraint = {_GUIDED[old]: value for old, value in given.items()}
    return {**gone, **_without_format(body), "structured_outputs": constraint}


def _without_format(body: Mapping[str, Any]) -> Changes:
    """`text` of a response without the format "text": vLLM takes no format at all beside a constraint."""
    text = body.get("text")
    if not isinstance(text, Mapping) or not isinstance(text.get("format"), Mapping):
        return {}
    return {"text": {name: value for name, value in text.items() if name != "format"}}


def _has_format(holder: Any) -> bool:
    return isinstance(holder, Mapping) and _is_constraint(holder.get("format"))


def _is_constraint(form: Any) -> bool:
    return isinstance(form, Mapping) and form.get("type") != "text"


def several_greedy(path: str, body: Mapping[str, Any], default_temperature: float | None) -> Changes:
    """`n` of the likeliest answer: vLLM refuses a temperature of 0 for it, and the one likeliest token is the same.

    Args:
        path: the engine's route.
        body: without nulls.
        default_temperature: of a request that names none.
    """
    n, temperature = body.get("n"), body.get("temperature", default_temperature)
    if path not in (CHAT, COMPLETIONS) or not _is_number(n) or n <= 1 or body.get("use_beam_search"):
        return {}
    if not _is_number(temperature) or temperature != 0:
        return {}
    return {"temperature": 1, "top_k": 1, "top_p": 1, "min_p": 0}


def stop_of_beams(path: str, body: Mapping[str, Any]) -> Changes:
    """`stop` beside `use_beam_search`, which vLLM does not read.

    Raises:
        FieldError: both are given.
    """
    if path in (CHAT, COMPLETIONS) and body.get("use_beam_search") is True and body.get("stop"):
        raise FieldError("stop", "stop would have no effect beside use_beam_search: beams are not searched for it.")
    return {}


def beside_hidden_reasoning(model: ServedModel) -> tuple[str, ...]:
    """The fields of a chat that would show the reasoning of this model's answers."""
    if model.writes_harmony:
        return ("return_token_ids",)  # log probabilities are those of the answer alone
    return ("return_token_ids", "logprobs") if model.parses_reasoning else ()


def hidden_reasoning(path: str, body: Mapping[str, Any], names: Iterable[str]) -> Changes:
    """What shows the reasoning, and is left out by vLLM without a word, beside `include_reasoning: false`.

    Args:
        path: the engine's route.
        body: without nulls.
        names: of the fields that ask for it.

    Raises:
        FieldError: both are given.
    """
    if path == CHAT and body.get("include_reasoning") is False:
        for name in names:
            if body.get(name):
                why = "would show the reasoning, which include_reasoning leaves out"
                raise FieldError(name, f"{name} {why}: give one.")
    return {}


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def no_truncation(path: str, body: Mapping[str, Any]) -> Changes:
    """`truncation: "auto"`, which responses/truncation.py does: vLLM cuts the tokens, the instructions first."""
    return {"truncation": None} if path == RESPONSES and body.get("truncation") == "auto" else {}


def without_nulls(_: str, body: Mapping[str, Any]) -> Changes:
    """Nulls in what a list of messages has, and in objects of options; a null means that a field is not given."""
    changes: Changes = {}
    for name in ("messages", "input"):
        if isinstance(listed := body.get(name), list) and any(map(_has_null, listed)):
            changes[name] = [_without_null(each) if _has_null(each) else each for each in listed]
    for name in ("stream_options", "reasoning", "text", "thinking", "output_config", "structured_outputs"):
        if isinstance(options := body.get(name), dict) and None in options.values():
            changes[name] = {inner: value for inner, value in options.items() if value is not None}
    return changes


def _has_null(message: Any) -> bool:
    return isinstance(message, dict) and any(value is None and name != "content" for name, value in message.items())


def _without_null(message: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if value is not None or name == "content"}


@cache
def translations(model: ServedModel) -> tuple[Callable[[str, Mapping[str, Any]], Changes], ...]:
    """In this order: each reads what those before it have made of the body."""
    return (
        without_nulls,
        included,
        *((template_arguments, no_log_probabilities) if model.writes_harmony else ()),
        constraints,
        partial(several_greedy, default_temperature=model.default_temperature),
        stop_of_beams,
        partial(hidden_reasoning, names=beside_hidden_reasoning(model)),
        no_truncation,
        allowed_tools,
        verbosity,
    )
