from __future__ import annotations

import json
import math
from argparse import ArgumentParser, BooleanOptionalAction
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gptoss_bento.errors import ConfigurationError, HardwareError
from gptoss_bento.hardware import Hardware
from gptoss_bento.plan import GPT_OSS_ARGUMENTS, PROCESS_ENVIRONMENT, EnginePlan, Planned, make_plan
from gptoss_bento.profile import Profile, fits, load_profile, profile_names
from gptoss_bento.variables import RESERVED, load_settings
from gptoss_bento.vllm_options import Option, known_options
from tests.fakes import A100, H100, H200, L4, T4, machine, nvidia

A4000 = nvidia("NVIDIA RTX A4000", 16376, "sm_86")
TIER = "tier of all machines"
PROFILE = Profile.model_validate(
    {
        "name": "p",
        "description": "d",
        "model": {"source": "org/model", "revision": "r1", "served_names": ["first", "second"]},
        "engine": {
            "arguments": {"max_num_seqs": 8, "max_model_len": 1024, "async_scheduling": False},
            "environment": {"FROM_PROFILE": "1", "FROM_BOTH": "profile", "VLLM_NO_USAGE_STATS": "0"},
        },
        "tiers": [
            {
                "name": "of all machines",
                "when": {},
                "arguments": {"max_model_len": 2048, "gpu_memory_utilization": 0.5},
                "environment": {"FROM_BOTH": "tier"},
            },
            {"name": "last", "when": {}, "arguments": {"gpu_memory_utilization": 0.6}},
            {"name": "of CPUs", "when": {"device": "cpu"}, "arguments": {"max_num_seqs": 2}},
        ],
    }
)


def planned(environ: Mapping[str, str], profile: Profile = PROFILE, hardware: Hardware | None = None) -> EnginePlan:
    return make_plan(load_settings(environ), profile, hardware or machine(H100))


# Precedence: one test per edge


def test_the_profile_wins_over_the_default_for_gpt_oss() -> None:
    assert planned({}).arguments["async_scheduling"] == Planned(False, "profile")


def test_a_tier_wins_over_the_profile() -> None:
    assert planned({}).arguments["max_model_len"] == Planned(2048, TIER)


def test_a_later_tier_wins_over_an_earlier_one() -> None:
    assert planned({}).arguments["gpu_memory_utilization"] == Planned(0.6, "tier last")


def test_a_variable_wins_over_a_tier() -> None:
    plan = planned({"GPU_MEMORY_UTILIZATION": "0.7"})

    assert plan.arguments["gpu_memory_utilization"] == Planned(0.7, "GPU_MEMORY_UTILIZATION")


def test_a_variable_wins_over_the_profile() -> None:
    assert planned({"MAX_NUM_SEQS": "3"}).arguments["max_num_seqs"] == Planned(3, "MAX_NUM_SEQS")


def test_a_variable_that_says_false_wins_over_the_default_for_gpt_oss() -> None:
    plan = planned({"ENABLE_AUTO_TOOL_CHOICE": "false"})

    assert plan.arguments["enable_auto_tool_choice"] == Planned(False, "ENABLE_AUTO_TOOL_CHOICE")
    assert "--no-enable-auto-tool-choice" in plan.argv("m")


def test_a_variable_wins_over_the_number_of_gpus() -> None:
    plan = planned({"TENSOR_PARALLEL_SIZE": "1"}, hardware=machine(H100, H100))

    assert plan.arguments["tensor_parallel_size"] == Planned(1, "TENSOR_PARALLEL_SIZE")


def test_a_tier_wins_over_the_number_of_gpus() -> None:
    plan = planned({}, load_profile("demo"), machine(H100, H100))

    assert plan.arguments["tensor_parallel_size"] == Planned(1, "tier gpu")


def test_a_variable_equal_to_the_profile_is_still_the_variables() -> None:
    assert planned({"MAX_NUM_SEQS": "8"}).arguments["max_num_seqs"] == Planned(8, "MAX_NUM_SEQS")


def test_a_tier_for_other_machines_changes_nothing() -> None:
    assert planned({}, hardware=machine(H100)).arguments["max_num_seqs"] == Planned(8, "profile")
    assert planned({}, hardware=machine()).arguments["max_num_seqs"] == Planned(2, "tier of CPUs")


def test_the_defaults_for_gpt_oss_apply_where_nobody_says_else() -> None:
    plan = planned({})

    for name in GPT_OSS_ARGUMENTS.keys() - {"async_scheduling"}:
        assert plan.arguments[name] == Planned(GPT_OSS_ARGUMENTS[name], "default for GPT-OSS")


def test_the_model_of_the_profile_is_the_model() -> None:
    plan = planned({})

    assert plan.model == Planned("org/model", "profile")
    assert plan.revision == Planned("r1", "profile")


@pytest.mark.parametrize("variable", ["MODEL_NAME", "MODEL"])
def test_the_model_named_by_the_operator_wins_over_the_profile(variable: str) -> None:
    assert planned({variable: "mine/model"}).model == Planned("mine/model", variable)


@pytest.mark.parametrize("variable", ["MODEL_REVISION", "REVISION"])
def test_the_revision_named_by_the_operator_wins_over_the_profile(variable: str) -> None:
    assert planned({variable: "r2"}).revision == Planned("r2", variable)


def test_the_profile_names_the_model_for_clients() -> None:
    assert planned({}).served_names == Planned(("first", "second"), "profile")


def test_another_model_is_served_under_its_own_name() -> None:
    assert planned({"MODEL_NAME": "mine/model"}).served_names == Planned(("mine/model",), "MODEL_NAME")


def test_the_profiles_model_named_again_keeps_the_profiles_names() -> None:
    assert planned({"MODEL_NAME": "org/model"}).served_names == Planned(("first", "second"), "profile")


def test_names_given_by_the_operator_win_over_those_of_model_and_profile() -> None:
    plan = planned({"MODEL_NAME": "mine/model", "OPENAI_SERVED_MODEL_NAME_OVERRIDE": "a,b"})

    assert plan.served_names == Planned(("a", "b"), "OPENAI_SERVED_MODEL_NAME_OVERRIDE")


@pytest.mark.parametrize("variable", ["TOKENIZER_NAME", "TOKENIZER"])
def test_the_tokenizer_named_by_the_operator_is_planned(variable: str) -> None:
    assert planned({variable: "a/tokenizer"}).arguments["tokenizer"] == Planned("a/tokenizer", variable)


def test_no_tokenizer_is_planned_unasked() -> None:
    assert "tokenizer" not in planned({}).arguments


def test_the_profiles_variable_wins_over_the_default() -> None:
    plan = planned({})

    assert plan.environment["VLLM_NO_USAGE_STATS"] == Planned("0", "profile")
    assert plan.environment["FROM_PROFILE"] == Planned("1", "profile")


def test_a_tiers_variable_wins_over_the_profiles() -> None:
    assert planned({}).environment["FROM_BOTH"] == Planned("tier", TIER)


def test_the_default_variables_are_planned() -> None:
    plan = planned({}, load_profile("gpt-oss-20b"))

    assert plan.environment == {name: Planned(value, "default") for name, value in PROCESS_ENVIRONMENT.items()}


@pytest.mark.parametrize(
    "name", ["VLLM_NO_USAGE_STATS", "FROM_PROFILE", "FROM_BOTH", "VLLM_ENABLE_RESPONSES_API_STORE"]
)
def test_a_variable_of_the_operators_own_wins_over_all(name: str) -> None:
    plan = planned({name: "mine"})

    assert plan.environment[name] == Planned("mine", "environment")
    assert plan.variables(Path("/v"))[name] == "mine"
    assert (name, "mine", "environment") in plan.rows()


def test_an_empty_variable_of_the_operators_own_is_a_value_too() -> None:
    assert planned({"FROM_PROFILE": ""}).environment["FROM_PROFILE"] == Planned("", "environment")


def test_other_variables_of_the_operator_are_not_planned() -> None:
    assert planned({"HOME": "/root", "HF_TOKEN": "s3cret"}).environment == planned({}).environment


def test_the_vocabulary_is_named_for_the_engines_processes() -> None:
    variables = planned({}).variables(Path("/v"))

    assert variables["TIKTOKEN_ENCODINGS_BASE"] == "/v"
    assert variables["FROM_BOTH"] == "tier"
    assert all(isinstance(value, str) for value in variables.values())


# Hardware


@pytest.mark.parametrize(("gpus", "size"), [(2, 2), (3, 2), (4, 4), (5, 4), (7, 4), (8, 8), (9, 8), (16, 8)])
def test_several_gpus_share_the_model_in_a_way_that_gpt_oss_allows(gpus: int, size: int) -> None:
    plan = planned({}, hardware=machine(*[H100] * gpus))

    assert plan.arguments["tensor_parallel_size"] == Planned(size, "number of GPUs")


@pytest.mark.parametrize("gpus", [0, 1])
def test_without_several_gpus_nothing_is_shared(gpus: int) -> None:
    assert "tensor_parallel_size" not in planned({}, hardware=machine(*[H100] * gpus)).arguments


@pytest.mark.parametrize(
    ("gpus", "environ", "size"),
    [
        (8, {"PIPELINE_PARALLEL_SIZE": "2"}, 4),
        (8, {"DATA_PARALLEL_SIZE": "2"}, 4),
        (8, {"DATA_PARALLEL_SIZE": "3"}, 2),
        (8, {"PIPELINE_PARALLEL_SIZE": "2", "DATA_PARALLEL_SIZE": "2"}, 2),
        (8, {"PIPELINE_PARALLEL_SIZE": "8"}, None),
        (4, {"DATA_PARALLEL_SIZE": "3"}, None),
        (4, {"DATA_PARALLEL_SIZE": "1"}, 4),
    ],
)
def test_gpus_that_the_operator_uses_otherwise_do_not_share_the_model(
    gpus: int, environ: dict[str, str], size: int | None
) -> None:
    arguments = planned(environ, hardware=machine(*[H100] * gpus)).arguments

    assert arguments.get("tensor_parallel_size") == (size and Planned(size, "number of GPUs"))
    assert {name.upper(): str(arguments[name.lower()].value) for name in environ} == environ


@pytest.mark.parametrize(
    ("environ", "gpus", "message"),
    [
        (
            {"TENSOR_PARALLEL_SIZE": "4"},
            2,
            "tensor_parallel_size 4 (TENSOR_PARALLEL_SIZE) need 4 GPUs, but this process sees 2.",
        ),
        (
            {"PIPELINE_PARALLEL_SIZE": "2"},
            1,
            "pipeline_parallel_size 2 (PIPELINE_PARALLEL_SIZE) need 2 GPUs, but this process sees 1.",
        ),
        (
            {"TENSOR_PARALLEL_SIZE": "2", "PIPELINE_PARALLEL_SIZE": "2"},
            2,
            "tensor_parallel_size 2 (TENSOR_PARALLEL_SIZE) and pipeline_parallel_size 2 (PIPELINE_PARALLEL_SIZE) "
            "need 4 GPUs, but this process sees 2.",
        ),
        (
            {"TENSOR_PARALLEL_SIZE": "2", "PIPELINE_PARALLEL_SIZE": "2", "DATA_PARALLEL_SIZE": "3"},
            8,
            "tensor_parallel_size 2 (TENSOR_PARALLEL_SIZE) and pipeline_parallel_size 2 (PIPELINE_PARALLEL_SIZE) and "
            "data_parallel_size 3 (DATA_PARALLEL_SIZE) need 12 GPUs, but this process sees 8.",
        ),
    ],
)
def test_sizes_that_need_more_gpus_than_there_are_are_refused_with_their_origins(
    environ: dict[str, str], gpus: int, message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        planned(environ, hardware=machine(*[H100] * gpus))

    assert str(caught.value) == message


def test_a_size_of_a_tier_counts_with_that_of_the_operator() -> None:
    with pytest.raises(ConfigurationError, match=r"^tensor_parallel_size 1 \(tier gpu\) and data_parallel_size 3 \("):
        planned({"DATA_PARALLEL_SIZE": "3"}, load_profile("demo"), machine(H100, H100))


def test_all_gpus_may_be_used_in_several_ways_at_once() -> None:
    environ = {"TENSOR_PARALLEL_SIZE": "2", "PIPELINE_PARALLEL_SIZE": "2", "DATA_PARALLEL_SIZE": "2"}
    arguments = planned(environ, hardware=machine(*[H100] * 8)).arguments

    assert {name: str(arguments[name.lower()].value) for name in environ} == environ


def test_a_cpu_may_share_the_model_as_the_operator_likes() -> None:
    assert planned({"TENSOR_PARALLEL_SIZE": "2"}, hardware=machine()).arguments["tensor_parallel_size"].value == 2


@pytest.mark.parametrize(
    ("profile", "hardware", "expected"),
    [
        ("demo", machine(), {"max_model_len": 4096, "enforce_eager": True}),
        ("demo", machine(T4), {"gpu_memory_utilization": 0.2, "tensor_parallel_size": 1}),
        ("demo", machine(H100), {"gpu_memory_utilization": 0.2, "tensor_parallel_size": 1}),
        ("demo", machine(*[H100] * 8), {"gpu_memory_utilization": 0.2, "tensor_parallel_size": 1}),
        ("gpt-oss-20b", machine(A4000), {"max_model_len": 16384, "max_num_seqs": 16, "gpu_memory_utilization": 0.95}),
        ("gpt-oss-20b", machine(A4000, A4000), {"max_model_len": 16384, "tensor_parallel_size": 2}),
        ("gpt-oss-20b", machine(L4), {"max_model_len": 65536, "max_num_seqs": 64, "gpu_memory_utilization": 0.92}),
        ("gpt-oss-20b", machine(A100), {"max_model_len": 131072}),
        ("gpt-oss-20b", machine(H100), {"max_model_len": 131072}),
        ("gpt-oss-20b", machine(H100, H100), {"max_model_len": 131072, "tensor_parallel_size": 2}),
        ("gpt-oss-20b", machine(*[H100] * 8), {"max_model_len": 131072, "tensor_parallel_size": 8}),
        ("gpt-oss-20b", machine(H200), {"max_model_len": 131072}),
        ("gpt-oss-120b", machine(A100), {"gpu_memory_utilization": 0.95, "max_num_batched_tokens": 1024}),
        ("gpt-oss-120b", machine(H100), {"gpu_memory_utilization": 0.95, "max_num_batched_tokens": 1024}),
        ("gpt-oss-120b", machine(H100, H100), {"max_model_len": 131072, "tensor_parallel_size": 2}),
        ("gpt-oss-120b", machine(*[H100] * 8), {"max_model_len": 131072, "tensor_parallel_size": 8}),
        ("gpt-oss-120b", machine(H200), {"max_model_len": 131072}),
        ("gpt-oss-120b", machine(*[L4] * 4), {"max_model_len": 131072, "tensor_parallel_size": 4}),
    ],
)
def test_a_profile_on_a_machine(profile: str, hardware: Hardware, expected: Mapping[str, Any]) -> None:
    plan = planned({}, load_profile(profile), hardware)

    assert {name: plan.arguments[name].value for name in expected} == expected


@pytest.mark.parametrize(
    ("profile", "hardware", "left_to_vllm"),
    [
        ("demo", machine(), ["gpu_memory_utilization", "tensor_parallel_size"]),
        ("gpt-oss-20b", machine(H100), ["gpu_memory_utilization", "max_num_seqs", "tensor_parallel_size"]),
        ("gpt-oss-120b", machine(H100, H100), ["gpu_memory_utilization", "max_num_batched_tokens"]),
        ("gpt-oss-120b", machine(H200), ["gpu_memory_utilization", "max_num_batched_tokens", "tensor_parallel_size"]),
    ],
)
def test_a_profile_leaves_to_vllm_what_it_has_no_reason_to_set(
    profile: str, hardware: Hardware, left_to_vllm: list[str]
) -> None:
    plan = planned({}, load_profile(profile), hardware)

    assert not plan.arguments.keys() & set(left_to_vllm)


def test_the_demo_on_a_cpu_gets_a_small_cache() -> None:
    demo = load_profile("demo")

    assert planned({}, demo, machine()).environment["VLLM_CPU_KVCACHE_SPACE"] == Planned("1", "tier cpu")
    assert "VLLM_CPU_KVCACHE_SPACE" not in planned({}, demo, machine(T4)).environment


@pytest.mark.parametrize(
    ("profile", "hardware", "found"),
    [
        ("gpt-oss-20b", machine(), "no GPU"),
        ("gpt-oss-20b", machine(T4), "1 x Tesla T4 (15 GiB)"),
        ("gpt-oss-20b", machine(*[T4] * 4), "4 x Tesla T4"),
        ("gpt-oss-120b", machine(), "no GPU"),
        ("gpt-oss-120b", machine(*[L4] * 3), "3 x NVIDIA L4"),
        ("gpt-oss-120b", machine(T4), "Tesla T4"),
        ("gpt-oss-120b", machine(L4), "NVIDIA L4"),
        ("gpt-oss-120b", machine(L4, L4), "2 x NVIDIA L4"),
    ],
)
def test_too_little_hardware_is_refused_with_need_and_find(profile: str, hardware: Hardware, found: str) -> None:
    with pytest.raises(HardwareError) as caught:
        planned({}, load_profile(profile), hardware)

    message = str(caught.value)
    assert profile in message
    assert "GiB of MXFP4 weights" in message
    assert "compute capability 8.0" in message
    assert found in message
    assert "PROFILE" in message


def test_requirements_hold_also_for_the_profiles_model_named_again() -> None:
    with pytest.raises(HardwareError, match="'gpt-oss-120b' needs"):
        planned({"MODEL_NAME": "openai/gpt-oss-120b"}, load_profile("gpt-oss-120b"), machine(L4))


def test_requirements_are_those_of_the_profiles_model_only() -> None:
    plan = planned({"MODEL_NAME": "a/small-one"}, load_profile("gpt-oss-120b"), machine(T4))

    assert plan.model.value == "a/small-one"


# Words for vLLM


def test_the_words_begin_with_the_prepared_model_and_its_names() -> None:
    words = planned({}).argv("/models/prepared")

    assert words[:4] == ["--model=/models/prepared", "--served-model-name", "first", "second"]


def test_a_revision_goes_with_the_hub_id_it_belongs_to() -> None:
    assert "--revision=r1" in planned({}).argv("org/model")


def test_a_revision_does_not_go_with_a_prepared_folder() -> None:
    assert not [word for word in planned({}).argv("/models/prepared") if word.startswith("--revision")]


def test_further_arguments_come_last() -> None:
    words = planned({"VLLM_EXTRA_ARGS": "--seed 5", "SEED": "4"}).argv("m")

    assert words[-2:] == ["--seed", "5"]
    assert "--seed=4" in words


def test_planned_values_become_words() -> None:
    environ = {
        "ENFORCE_EAGER": "true",
        "ENABLE_PREFIX_CACHING": "false",
        "DISABLE_LOG_STATS": "false",
        "CUDAGRAPH_CAPTURE_SIZES": "1,2",
        "COMPILATION_CONFIG": '{"mode": 3}',
    }
    words = planned(environ).argv("m")

    assert {"--enforce-eager", "--no-enable-prefix-caching", '--compilation-config={"mode": 3}'} <= set(words)
    assert "--disable-log-stats" not in words
    at = words.index("--cudagraph-capture-sizes")
    assert words[at + 1 : at + 3] == ["1", "2"]


# For people


def test_rows_show_every_value_with_its_origin() -> None:
    rows = list(planned({"MAX_NUM_SEQS": "3", "VLLM_EXTRA_ARGS": "--seed 5"}).rows())

    assert ("profile", "p", "") in rows
    assert ("hardware", "1 x NVIDIA H100 80GB HBM3 (80 GiB)", "probed") in rows
    assert ("model", "org/model", "profile") in rows
    assert ("revision", "r1", "profile") in rows
    assert ("served names", "first, second", "profile") in rows
    assert ("--max-num-seqs", "3", "MAX_NUM_SEQS") in rows
    assert ("FROM_BOTH", "tier", TIER) in rows
    assert rows[-1] == ("further arguments", "--seed 5", "VLLM_EXTRA_ARGS")


def test_rows_leave_out_what_is_not_planned() -> None:
    names = [name for name, _, _ in planned({}, load_profile("gpt-oss-20b")).rows()]

    assert "revision" not in names
    assert "further arguments" not in names


# Properties

_SIZES = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
_OPTIONS = [
    option
    for option in known_options().values()
    if option.name not in RESERVED | {"tokenizer", "revision", "served_model_name", *_SIZES}
]
_WORDS = st.text("abcdez0129._/", min_size=1, max_size=12).filter(lambda word: word not in {"none", "null"})
_MACHINES = st.lists(st.sampled_from([T4, L4, A100, H100, H200]), max_size=9).map(lambda gpus: machine(*gpus))
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
    return values | draw(st.fixed_dictionaries({}, optional=dict.fromkeys(_SIZES, st.integers(1, 4))))


def _needed_gpus(values: Mapping[str, Any]) -> int:
    return math.prod(values.get(name, 1) for name in _SIZES)


_NAMES = st.fixed_dictionaries(
    {},
    optional={
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
def test_what_was_said_is_planned_unchanged_or_the_plan_is_refused(
    values: dict[str, Any], names: dict[str, str], profile: Profile, hardware: Hardware
) -> None:
    options = known_options()
    environ = {name.upper(): _text(options[name], value) for name, value in values.items()} | names

    try:
        plan = planned(environ, profile, hardware)
    except HardwareError:
        assert not fits(profile, hardware)
        return
    except ConfigurationError:
        assert _needed_gpus(values) > len(hardware.gpus) > 0
        return

    assert not hardware.gpus or _needed_gpus({name: size.value for name, size in plan.arguments.items()}) <= len(
        hardware.gpus
    )
    for name, value in values.items():
        assert _same(options[name], plan.arguments[name].value, value)
        assert plan.arguments[name].origin == name.upper()
    chosen = {
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
def test_the_words_read_back_give_what_was_planned(values: dict[str, Any], profile: Profile) -> None:
    options = known_options()
    environ = {name.upper(): _text(options[name], value) for name, value in values.items()}
    assume(_needed_gpus(values) <= 16)
    plan = planned(environ, profile, machine(*[H200] * 16))

    read = vars(_PARSER.parse_args(plan.argv("some/model")))

    assert read["model"] == "some/model"
    assert tuple(read["served_model_name"]) == plan.served_names.value
    for name, planned_value in plan.arguments.items():
        assert _same(options[name], read[name], planned_value.value)
