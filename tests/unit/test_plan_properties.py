"""The plan's promise, over settings and hardware: what was said is planned as it was said, or refused by name."""

from __future__ import annotations

import json
import math
from argparse import ArgumentParser, BooleanOptionalAction
from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gptoss_bento.config.environment import load_settings
from gptoss_bento.config.goal import Goal
from gptoss_bento.config.profile import PARALLEL_SIZES, Profile, fits, load_profile, profile_names
from gptoss_bento.config.variables import RESERVED, catalogue
from gptoss_bento.config.vllm_options import Option, known_options
from gptoss_bento.errors import ConfigurationError, HardwareError
from gptoss_bento.hardware.gpu_catalogue import known_cards
from gptoss_bento.hardware.probe import Hardware, hardware_named
from gptoss_bento.planning.memory_estimate import MEMORY_ARGUMENTS
from gptoss_bento.planning.plan import EnginePlan, Planned
from gptoss_bento.planning.planner import make_plan
from tests.fakes import H200, machine


def planned(environ: Mapping[str, str], profile: Profile, hardware: Hardware) -> EnginePlan:
    return make_plan(load_settings(environ), profile, hardware)


_OPTIONS = [
    option
    for option in known_options().values()
    if option.name not in RESERVED | {"model", "tokenizer", "revision", "served_model_name", *PARALLEL_SIZES}
]
_WORDS = st.text("abcdez0129._/", min_size=1, max_size=12).filter(lambda word: word not in {"none", "null"})
_CARDS = [hardware_named(card).gpus[0] for card in known_cards()]
_MACHINES = st.lists(st.sampled_from(_CARDS), max_size=9).map(lambda gpus: machine(*gpus)) | st.builds(
    lambda card, count: hardware_named(f"{card}x{count}"), st.sampled_from(list(known_cards())), st.integers(1, 8)
)
_PROFILES = st.sampled_from([load_profile(name) for name in profile_names()])


def _values(option: Option) -> st.SearchStrategy[Any]:
    if option.choices:
        one: st.SearchStrategy[Any] = st.sampled_from([choice for choice in option.choices if choice != "None"])
        return one.map(int) if option.kind == "int" else st.lists(one, min_size=1) if option.many else one
    one = {
        "switch": st.booleans(),
        "flag": st.booleans(),
        "int": st.integers(-1, 10**6),
        "count": st.integers(1, 10**6),
        "float": st.floats(0, 100),
        "json": st.dictionaries(_WORDS, st.integers() | st.booleans() | _WORDS, max_size=3),
        "text": _WORDS,
    }[option.kind]
    return st.lists(one, min_size=1, max_size=3) if option.many else one


def _text(option: Option, value: Any) -> str:
    if option.many:
        return ",".join(str(item) for item in value)
    return json.dumps(value) if option.kind == "json" else str(value)


@st.composite
def _explicit_values(draw: st.DrawFn) -> dict[str, Any]:
    """What an operator says about the engine: option names and values."""
    options = draw(st.lists(st.sampled_from(_OPTIONS), unique_by=lambda option: option.name, max_size=6))
    values = {option.name: draw(_values(option)) for option in options}
    return values | draw(st.fixed_dictionaries({}, optional=dict.fromkeys(PARALLEL_SIZES, st.integers(1, 4))))


def _needed_gpus(values: Mapping[str, Any]) -> int:
    return math.prod(values.get(name, 1) for name in PARALLEL_SIZES)


_NAMES = st.fixed_dictionaries(
    {},
    optional={
        "GOAL": st.sampled_from(list(Goal)),
        "MODEL_NAME": _WORDS,
        "MODEL_REVISION": _WORDS,
        "TOKENIZER_NAME": _WORDS,
        "OPENAI_SERVED_MODEL_NAME_OVERRIDE": _WORDS,
    },
)


def _same(option: Option, found: Any, said: Any) -> bool:
    return str(found) == str(said) if option.kind == "count" else bool(found == said)


@given(values=_explicit_values(), names=_NAMES, profile=_PROFILES, hardware=_MACHINES)
@hypothesis_settings(deadline=None, max_examples=150)
def test_settings_are_planned_unchanged_or_the_plan_is_refused(
    values: dict[str, Any], names: dict[str, str], profile: Profile, hardware: Hardware
) -> None:
    options = known_options()
    environ = {name.upper(): _text(options[name], value) for name, value in values.items()} | names

    try:
        plan = planned(environ, profile, hardware)
    except HardwareError:  # too small or too old, whatever was said
        assert not fits(profile, hardware) or not MEMORY_ARGUMENTS & values.keys()
        return
    except ConfigurationError as error:
        message = str(error)
        plan = None
    if plan is None:
        assert [name for name in values if name.upper() in message], message
        return

    assert not hardware.gpus or _needed_gpus({name: size.value for name, size in plan.arguments.items()}) <= len(
        hardware.gpus
    )
    zero = catalogue().zero_is_unset
    for name, value in values.items():
        if name in zero and value == 0:  # unset, as older workers meant it
            continue
        planned_value = plan.api_workers if name == "api_server_count" else plan.arguments[name]
        assert _same(options[name], planned_value.value, value)
        assert planned_value.origin == name.upper()
    if plan.memory:
        assert plan.memory.fits
    chosen = {
        "GOAL": plan.goal,
        "MODEL_NAME": plan.model,
        "MODEL_REVISION": plan.revision,
        "TOKENIZER_NAME": plan.arguments.get("tokenizer"),
        "OPENAI_SERVED_MODEL_NAME_OVERRIDE": plan.served_names,
    }
    for variable, text in names.items():
        value = (text,) if variable.startswith("OPENAI") else text
        assert chosen[variable] == Planned(value, variable)


def _parser() -> ArgumentParser:
    """A parser with the options of vLLM as recorded, standing for vLLM's own."""
    types: dict[str, Callable[[str], Any]] = {
        "int": int,
        "count": int,
        "float": float,
        "json": json.loads,
        "text": str,
    }
    parser = ArgumentParser(allow_abbrev=False, add_help=False)
    for option in known_options().values():
        if option.kind == "switch":
            parser.add_argument(option.flag, action=BooleanOptionalAction)
        elif option.kind == "flag":
            parser.add_argument(option.flag, action="store_true")
        elif option.many == "repeat":
            parser.add_argument(option.flag, type=types[option.kind], action="append")
        else:
            parser.add_argument(option.flag, type=types[option.kind], nargs="+" if option.many else None)
    return parser


_PARSER = _parser()


@given(values=_explicit_values(), profile=_PROFILES)
@hypothesis_settings(deadline=None, max_examples=75)
def test_arguments_read_back_are_the_planned_values(values: dict[str, Any], profile: Profile) -> None:
    options = known_options()
    environ = {name.upper(): _text(options[name], value) for name, value in values.items()}
    assume(_needed_gpus(values) <= 16)
    try:
        plan = planned(environ, profile, machine(*[H200] * 16))
    except ConfigurationError:
        assume(False)

    read = vars(_PARSER.parse_args(plan.argv("some/model")))

    assert read["model"] == "some/model"
    assert tuple(read["served_model_name"]) == plan.served_names.value
    for name, planned_value in plan.arguments.items():
        assert _same(options[name], read[name], planned_value.value)
