"""`sampling_params` of native jobs: which names there are, what each may hold, and what the engine gets. Pure.

Names and ranges are those of vLLM 0.32's completion and chat requests; tests/contract/test_native.py compares them.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gptoss_bento.http.fields.integers import too_large
from gptoss_bento.http.paths import CHAT, COMPLETIONS
from gptoss_bento.jobs.field_types import (
    BOOLEAN,
    Bias,
    Factor,
    From0,
    From1,
    FromMinus1,
    Int64,
    JsonObject,
    Number,
    Object,
    Objects,
    Penalty,
    Share,
    ShareAbove0,
    Stop,
    Switch,
    Temperature,
    Text,
    TokenIds,
    TopK,
)
from gptoss_bento.jobs.input_problems import Must, checked, sentences, text_of
from gptoss_bento.spelling import nearest
from gptoss_bento.strict_json import shown

REMOVED = "{name} was removed from vLLM; leave it out, got {value}"

_LIMITS = {"max_tokens", "max_completion_tokens"}
Removed = Annotated[Literal[False], BOOLEAN, Must("left out: vLLM has it no more", REMOVED)]
# vLLM's names of former years, and what became of them.
_GUIDED = ("guided_json", "guided_regex", "guided_choice", "guided_grammar")
_OWN = frozenset({"best_of", "early_stopping", "detokenize", "extra_args", *_GUIDED})
_GuidedField = Field(None, description="A name of former years for structured_outputs.")


class Parameters(BaseModel):
    """What every native job may ask for. A null means: not given."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    model: Text | None = None
    n: From1 | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Factor | None = None
    temperature: Temperature | None = None
    top_p: ShareAbove0 | None = None
    top_k: TopK | None = None
    min_p: Share | None = None
    use_beam_search: Switch | None = None
    length_penalty: Number | None = None
    stop: Stop | None = None
    stop_token_ids: TokenIds | None = None
    ignore_eos: Switch | None = None
    max_tokens: From1 | None = None
    min_tokens: From0 | None = None
    skip_special_tokens: Switch | None = None
    spaces_between_special_tokens: Switch | None = None
    truncate_prompt_tokens: FromMinus1 | None = None
    truncation_side: Annotated[Literal["left", "right"], Must('"left" or "right"')] | None = None
    seed: Int64 | None = None
    include_stop_str_in_output: Switch | None = None
    prompt_logprobs: From0 | None = None
    logit_bias: Bias | None = None
    bad_words: Annotated[list[str], Must("a list of strings")] | None = None
    allowed_token_ids: TokenIds | None = None
    structured_outputs: Object | None = None
    thinking_token_budget: FromMinus1 | None = None
    echo: Switch | None = None
    user: Text | None = None
    response_format: Object | None = None
    add_special_tokens: Switch | None = None
    priority: Int64 | None = None
    cache_salt: Text | None = None
    vllm_xargs: Object | None = None
    stream_options: Object | None = None
    logprob_token_ids: TokenIds | None = None
    return_tokens_as_token_ids: Switch | None = None
    repetition_detection: Object | None = None
    session_id: Text | None = None

    # Names that the engine does not get.
    best_of: Any = Field(None, description="Removed from vLLM: leave it out.")
    early_stopping: Removed | None = None
    detokenize: Annotated[Literal[True], BOOLEAN, Must("true, a job's output is text")] | None = None
    extra_args: Object | None = Field(None, description="vLLM's name in Python for vllm_xargs.")
    guided_json: Any = _GuidedField
    guided_regex: Any = _GuidedField
    guided_choice: Any = _GuidedField
    guided_grammar: Any = _GuidedField


class CompletionParameters(Parameters):
    """`sampling_params` for a prompt, by vLLM's names. Unknown names are errors."""

    logprobs: From0 | None = None
    suffix: Text | None = None


class ChatParameters(Parameters):
    """`sampling_params` for messages, by the names of vLLM and of OpenAI's chat. Unknown names are errors."""

    # OpenAI's chat has a switch here and the number in top_logprobs; worker-vllm took the number.
    logprobs: Annotated[bool | From0, Must("an integer from 0")] | None = None
    top_logprobs: From0 | None = None
    max_completion_tokens: From1 | None = None
    tools: Objects | None = None
    tool_choice: Annotated[str | JsonObject, Must("a string or an object")] | None = None
    parallel_tool_calls: Switch | None = None
    reasoning_effort: Text | None = None
    include_reasoning: Switch | None = None
    add_generation_prompt: Switch | None = None
    continue_final_message: Switch | None = None
    chat_template: Text | None = None
    chat_template_kwargs: Object | None = None
    documents: Objects | None = None
    mm_processor_kwargs: Object | None = None
    media_io_kwargs: Object | None = None


FORWARDED = {
    "completion": frozenset(CompletionParameters.model_fields) - _OWN,
    "chat": frozenset(ChatParameters.model_fields) - _OWN,
}
"""The names that reach the engine as they are, by kind of request."""


def engine_parameters(given: Mapping[str, Any], *, chat: bool, stream: bool, default_max_tokens: int) -> dict[str, Any]:
    """The fields of the engine's request that `sampling_params` mean. A null means: not given.

    Raises:
        ValueError: all that is wrong, a sentence for each problem, with field and value.
    """
    values = {name: value for name, value in given.items() if value is not None}
    kind = ChatParameters if chat else CompletionParameters
    parameters, found = checked(kind, values, partial(_unknown, chat=chat))
    wrong = {each.field for each in found}
    right = {name: value for name, value in values.items() if name not in wrong}
    problems = [*sentences(found), *_joint_problems(right, wrong, chat, stream, default_max_tokens)]
    problems += _large_integers(right, CHAT if chat else COMPLETIONS)
    if parameters is None or problems:
        raise ValueError(text_of(problems))
    return _translated({name: getattr(parameters, name) for name in values}, chat, default_max_tokens)


def _unknown(name: str, value: Any, *, chat: bool) -> str:
    other = CompletionParameters if chat else ChatParameters
    if name in other.model_fields:
        return f"{name} is for {'prompt' if chat else 'messages'} jobs only, got {shown(value)}"
    near = nearest(name, (ChatParameters if chat else CompletionParameters).model_fields)
    hint = f". Did you mean {near}?" if near else ""
    return f"{shown(name)[1:-1]} is not a sampling parameter, got {shown(value)}{hint}"


def _joint_problems(
    values: Mapping[str, Any], wrong: Set[str], chat: bool, stream: bool, default_max_tokens: int
) -> list[str]:
    """What is wrong with values together, each of which is right by itself.

    Args:
        values: those that are right.
        wrong: the names of the others.
        chat: whether the job is a chat.
        stream: whether it streams.
        default_max_tokens: where none are given.
    """
    problems = []
    n, beams = values.get("n", 1), values.get("use_beam_search") is True
    best_of = values.get("best_of", n)
    if "n" not in wrong and (isinstance(best_of, bool) or best_of != n):
        problems.append(REMOVED.format(name="best_of", value=shown(best_of)))
    problems += _beam_problems(values, stream) if beams else []
    least, most = values.get("min_tokens", 0), _max_tokens(values, chat, default_max_tokens)
    if least > most and not wrong & _LIMITS:
        problems.append(f"min_tokens must be at most max_tokens, which is {most}, got {shown(least)}")
    return problems + _constraint_problems(values)


def _large_integers(values: Mapping[str, Any], path: str) -> list[str]:
    """Within objects; the types of the other fields have bounds."""
    objects = {name: value for name, value in values.items() if isinstance(value, Mapping)}
    return [found[1] for name, value in objects.items() if (found := too_large(path, name, value))]


def _beam_problems(values: Mapping[str, Any], stream: bool) -> list[str]:
    problems = ["use_beam_search must be false when stream is true, got true"] if stream else []
    if values.get("stop"):
        problems.append(f"stop must be left out when use_beam_search is true, got {shown(values['stop'], 30)}")
    return problems


def _constraint_problems(values: Mapping[str, Any]) -> list[str]:
    constraints = sorted(name for name in (*_GUIDED, "structured_outputs", "response_format") if name in values)
    if len(constraints) < 2 or not set(constraints) & set(_GUIDED):
        return []
    got = ", ".join(f"{name} {shown(values[name], 30)}" for name in constraints)
    return [f"Only one of {', '.join(constraints)} may be given, got {got}"]


def _max_tokens(values: Mapping[str, Any], chat: bool, default: int) -> Any:
    own = values.get("max_tokens", default)
    return values.get("max_completion_tokens", own) if chat else own


def _translated(values: Mapping[str, Any], chat: bool, default_max_tokens: int) -> dict[str, Any]:
    body = {name: value for name, value in values.items() if name not in _OWN}
    if not _LIMITS & body.keys():
        body["max_tokens"] = default_max_tokens
    body |= {old: values[old] for old in _GUIDED if old in values}  # http/fields/ translates them, by their names
    if "extra_args" in values:
        body["vllm_xargs"] = {**values["extra_args"], **body.get("vllm_xargs", {})}
    if chat and "logprobs" in body and not isinstance(body["logprobs"], bool):
        body.setdefault("top_logprobs", body["logprobs"])
        body["logprobs"] = True
    return body
