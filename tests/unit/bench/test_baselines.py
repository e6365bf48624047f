from __future__ import annotations

from gptoss_bento.bench.baselines import Baseline, Candidate, candidates
from gptoss_bento.config.environment import load_settings
from gptoss_bento.config.profile import load_profile
from gptoss_bento.planning.plan import EnginePlan
from gptoss_bento.planning.planner import make_plan
from tests.fakes import H200, machine

VARIABLES = {
    "PROFILE": "gpt-oss-20b",
    "TIKTOKEN_ENCODINGS_BASE": "/vocabulary",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_V1_OUTPUT_PROC_CHUNK_SIZE": "1024",
    "VLLM_CPU_KVCACHE_SPACE": "1",
}


def planned(**variables: str) -> EnginePlan:
    settings = load_settings({"HOME": "/root", "API_WORKERS": "3", **variables})
    return make_plan(settings, load_profile("gpt-oss-20b"), machine(H200))


def found(*against: Baseline, memory_share: float | None = None, **variables: str) -> list[Candidate]:
    return candidates(against, planned(**variables), "/models/m", VARIABLES, memory_share)


def words(candidate: Candidate) -> str:
    return " ".join(candidate.command(3000))


def test_service_of_ours_comes_first_with_all_of_its_variables() -> None:
    ours, *others = found()

    assert (ours.name, ours.variables, others) == ("gptoss-bento", VARIABLES, [])
    assert "bentoml serve" in words(ours)


def test_vllm_serve_as_it_comes_has_no_argument_and_no_variable_of_ours() -> None:
    _, serve = found(Baseline.SERVE)

    assert words(serve).endswith(
        "serve /models/m --served-model-name openai/gpt-oss-20b gpt-oss-20b --host 127.0.0.1 --port 3000"
    )
    assert serve.name == "vllm serve"
    assert not {"VLLM_WORKER_MULTIPROC_METHOD", "VLLM_V1_OUTPUT_PROC_CHUNK_SIZE"} & set(serve.variables)
    assert serve.variables["TIKTOKEN_ENCODINGS_BASE"] == "/vocabulary"
    assert serve.variables["VLLM_CPU_KVCACHE_SPACE"] == "1", "or it would take all memory of a machine without GPU"


def test_vllm_serve_loads_as_ours_does_and_gets_its_share_of_the_memory() -> None:
    _, serve = found(Baseline.SERVE, memory_share=0.3, LOAD_FORMAT="dummy")

    assert "--load-format=dummy --gpu-memory-utilization=0.3 " in words(serve)


def test_api_servers_are_as_many_as_ours() -> None:
    _, serve = found(Baseline.API_SERVERS)

    assert serve.name == "vllm serve, 3 API servers"
    assert "--api-server-count=3 " in words(serve)


def test_same_arguments_are_those_of_the_plan() -> None:
    _, bare = found(Baseline.SAME_ARGUMENTS)

    assert "--max-num-batched-tokens=2304" in words(bare)
    assert words(bare).count("--api-server-count=3") == 1
    assert bare.variables["VLLM_V1_OUTPUT_PROC_CHUNK_SIZE"] == "1024"


def test_baselines_are_unique_and_in_the_order_of_the_options() -> None:
    names = [each.name for each in found(Baseline.API_SERVERS, Baseline.SERVE, Baseline.API_SERVERS)]

    assert names == ["gptoss-bento", "vllm serve, 3 API servers", "vllm serve"]
