"""Which fields `input` may have, and a sentence for each that would have no effect. Pure.

Sampling parameters may be given beside `prompt` or `messages`, where users of OpenAI's API expect them, and count as if
they were in `sampling_params`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from gptoss_bento.jobs.input_models import JobInput, NativeJob, RouteJob
from gptoss_bento.jobs.sampling import ChatParameters, CompletionParameters
from gptoss_bento.redaction import redacted
from gptoss_bento.spelling import nearest
from gptoss_bento.strict_json import shown

WITHOUT_EFFECT = frozenset({"use_openai_format"})
"""Read by nothing, in worker-vllm neither; some clients still send it."""

FIELDS = frozenset(JobInput.model_fields)
PARAMETERS = (frozenset(ChatParameters.model_fields) | frozenset(CompletionParameters.model_fields)) - FIELDS
"""The names of `sampling_params`, but for `model`, which has a meaning of its own beside them."""

_SHAPES = ("prompt", "messages", "openai_input", "openai_route", "route")
_ROUTE_ONLY = frozenset(RouteJob.model_fields) - {"route"}


def unknown_fields(given: Mapping[str, Any]) -> list[str]:
    """A sentence for each name that no job has, with the nearest that one has. A null means: not given."""
    known = FIELDS | PARAMETERS | WITHOUT_EFFECT
    return [_unknown(name, value) for name, value in given.items() if name not in known and value is not None]


def meant_shape(given: Mapping[str, Any]) -> list[str]:
    """Where no shape matches: which one was meant by a mistyped name, such as `promt`."""
    found = [(name, nearest(name, _SHAPES, 0.7)) for name in given if name not in FIELDS]
    return [f"{shown(name)[1:-1]}: did you mean {near}?" for name, near in found if near]


def _unknown(name: str, value: Any) -> str:
    near = nearest(name, sorted(FIELDS)) or nearest(name, sorted(PARAMETERS))
    hint = f"Did you mean {near}?" if near else f"It takes {', '.join(NativeJob.model_fields)}, or a sampling parameter"
    return f"{shown(name)[1:-1]} is no field of input, got {shown(redacted(name, value))}. {hint}"


def without_effect(given: Mapping[str, Any], place: str) -> list[str]:
    """What is beside a request of a route and would not reach it.

    Args:
        given: `input`.
        place: where the fields of the request are: `openai_input` or `body`.
    """
    names = [name for name in given if name in PARAMETERS or (name == "sampling_params" and given[name])]
    return [_misplaced(name, given[name], f"belongs into {place} here") for name in names if given[name] is not None]


def without_route(given: Mapping[str, Any]) -> list[str]:
    """What a job of a prompt or of messages has that only a job of a route has."""
    return [
        _misplaced(name, value, "is for jobs with route only")
        for name, value in given.items()
        if name in _ROUTE_ONLY and value is not None
    ]


def _misplaced(name: str, value: Any, words: str) -> str:
    return f"{name} {words}, got {shown(value)}"


def with_parameters(fields: Mapping[str, Any], given: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """The fields of a native job, with the sampling parameters beside them put into `sampling_params`.

    Args:
        fields: of the job.
        given: `input`.
        problems: gets a sentence for each parameter that has another value in `sampling_params`.
    """
    beside = {name: value for name, value in given.items() if name in PARAMETERS and value is not None}
    inside = fields.get("sampling_params", {})
    if not beside or not isinstance(inside, dict):  # the latter is a problem already
        return dict(fields)
    problems += [
        f"{name} is {shown(value)} in input and {shown(inside[name])} in sampling_params; give it once"
        for name, value in beside.items()
        if inside.get(name) is not None and not _same(value, inside[name])
    ]
    return {**fields, "sampling_params": {**inside, **beside}}


def _same(one: Any, other: Any) -> bool:
    """As JSON has it: 1 is 1.0, and true is another value than 1."""
    return isinstance(one, bool) is isinstance(other, bool) and bool(one == other)


def endless_numbers(given: Mapping[str, Any], place: str = "") -> list[str]:
    """A sentence for each number that no float holds, such as 1e999, wherever it is below `place`."""
    try:
        json.dumps(given, allow_nan=False)  # in C, where nearly all inputs end
    except ValueError:
        return [
            f"{path} must be a number below 1.8e308, got {_shown_endless(value)}"
            for path, value in _endless(given, place)
        ]
    except RecursionError:  # the engine says what it thinks of it
        pass
    return []


def _shown_endless(value: float) -> str:
    return f"{'-' if value < 0 else ''}1e999 or the like"


def _endless(given: Mapping[str, Any], place: str) -> Iterator[tuple[str, float]]:
    left: list[tuple[str, Any]] = [(place, given)]
    while left:
        path, value = left.pop()
        if isinstance(value, float) and not math.isfinite(value):
            yield path, value
        elif isinstance(value, dict):
            left += [(f"{path}.{name}" if path else str(name), inner) for name, inner in reversed(value.items())]
        elif isinstance(value, list):
            left += [(f"{path}[{index}]", inner) for index, inner in reversed(list(enumerate(value)))]
