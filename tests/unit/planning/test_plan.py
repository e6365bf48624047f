from __future__ import annotations

from pathlib import Path

import pytest

from gptoss_bento.config.profile import load_profile
from tests.fakes import H100, machine
from tests.unit.planning.plans import TIER, planned


def test_vocabulary_is_named_for_the_engines_processes() -> None:
    variables = planned({}).variables(Path("/v"))

    assert variables["TIKTOKEN_ENCODINGS_BASE"] == "/v"
    assert variables["FROM_BOTH"] == "tier"
    assert all(isinstance(value, str) for value in variables.values())


def test_rows_show_what_a_start_does_besides() -> None:
    rows = list(planned({"WARMUP": "0", "ENGINE_PRELOAD": "1"}, load_profile("demo"), machine(H100)).rows())

    assert ("warm-up requests", "no", "WARMUP") in rows
    assert ("engine imports early", "yes", "ENGINE_PRELOAD") in rows


# Words for vLLM


def test_arguments_start_with_the_prepared_model_and_its_names() -> None:
    words = planned({}).argv("/models/prepared")

    assert words[:4] == ["--model=/models/prepared", "--served-model-name", "first", "second"]


def test_revision_goes_with_the_hub_id_it_belongs_to() -> None:
    assert "--revision=r1" in planned({}).argv("org/model")


def test_revision_does_not_go_with_a_prepared_folder() -> None:
    assert not [word for word in planned({}).argv("/models/prepared") if word.startswith("--revision")]


def test_code_of_a_models_repository_runs_only_if_asked() -> None:
    assert not [word for word in planned({}).argv("m") if "trust" in word]
    assert "--trust-remote-code" in planned({"TRUST_REMOTE_CODE": "1"}).argv("m")


def test_further_arguments_become_words_of_their_options() -> None:
    words = planned({"VLLM_EXTRA_ARGS": "--seed 5 -cc.mode 3 -O3", "SEED": "4"}).argv("m")

    assert {"--seed=5", '--compilation-config={"mode": 3}', "--optimization-level=3"} <= set(words)
    assert "--seed=4" not in words


def test_planned_values_become_arguments() -> None:
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
    rows = list(planned({"MAX_NUM_SEQS": "3", "VLLM_EXTRA_ARGS": "--seed 5 -O3"}).rows())

    assert ("profile", "p", "") in rows
    assert ("hardware", "1 x NVIDIA H100 80GB HBM3 (80 GiB)", "probed") in rows
    assert ("model", "org/model", "profile") in rows
    assert ("revision", "r1", "profile") in rows
    assert ("served names", "first, second", "profile") in rows
    assert ("--max-num-seqs", "3", "MAX_NUM_SEQS") in rows
    assert ("FROM_BOTH", "tier", TIER) in rows
    assert ("--seed", "5", "VLLM_EXTRA_ARGS") in rows
    assert ("--optimization-level", "3", "VLLM_EXTRA_ARGS") in rows
    assert ("goal", "balanced", "default") in rows


def test_rows_leave_out_what_is_not_planned() -> None:
    names = [name for name, _, _ in planned({}, load_profile("gpt-oss-20b")).rows()]

    assert "revision" not in names
    assert "further arguments" not in names


def test_rows_show_the_memory_split_as_an_estimate() -> None:
    (row,) = [row for row in planned({}, load_profile("gpt-oss-20b")).rows() if row[0] == "memory"]

    assert row[2] == "estimate"
    assert "weights 13.4" in row[1]
    assert "requests of 131,072" in row[1]


def test_rows_show_warnings() -> None:
    plan = planned({"GOAL": "latency"})

    assert ("warning", plan.warnings[0], "") in plan.rows()


def test_rows_show_no_secrets() -> None:
    environ = {
        "KV_TRANSFER_CONFIG": '{"password": "s3cret"}',
        "VLLM_EXTRA_ARGS": "--kv-transfer-config.token s3cret --otlp-traces-endpoint=http://me:s3cret@host",
    }

    assert "s3cret" not in str(list(planned(environ).rows()))


# Speculation


@pytest.mark.parametrize(
    ("environ", "draft"),
    [
        ({}, None),
        ({"SPECULATIVE_CONFIG": '{"method": "ngram", "num_speculative_tokens": 2}'}, None),
        ({"SPECULATIVE_MODEL": "a/draft", "NUM_SPECULATIVE_TOKENS": "3"}, "a/draft"),
        ({"GOAL": "latency"}, "RedHatAI/gpt-oss-20b-speculator.eagle3"),
    ],
)
def test_plan_names_the_model_that_speculates(environ: dict[str, str], draft: str | None) -> None:
    assert planned(environ, load_profile("gpt-oss-20b")).draft == draft
