"""A profile with one value of each origin, and the plans that tests make of it."""

from __future__ import annotations

from collections.abc import Mapping

from gptoss_bento.config.environment import load_settings
from gptoss_bento.config.profile import Profile
from gptoss_bento.hardware.probe import Hardware
from gptoss_bento.planning.plan import EnginePlan
from gptoss_bento.planning.planner import make_plan
from tests.fakes import H100, machine

TIER = "tier of all machines"
START_METHOD = "VLLM_WORKER_MULTIPROC_METHOD"
UP_TO_1024 = [
    *(1, 2),
    *range(4, 32, 4),
    *range(32, 64, 8),
    *range(64, 128, 16),
    *range(128, 256, 32),
    *range(256, 512, 64),
    *range(512, 1025, 128),
]
UP_TO_2048 = [*UP_TO_1024, *range(1280, 2049, 256)]
UP_TO_2304 = [*UP_TO_2048, 2304]
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
