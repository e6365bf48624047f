"""What we read of VLLM_EXTRA_ARGS and give to vLLM as options is what vLLM reads of the words themselves."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

import pytest

from gptoss_bento.config.extra_args import parse
from gptoss_bento.config.vllm_options import known_options
from gptoss_bento.engine.vllm_parser import serve_parser

pytestmark = [pytest.mark.contract, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def parser() -> ArgumentParser:
    return serve_parser()


def _read(parser: ArgumentParser, words: list[str]) -> dict[str, str]:
    """By text: some of vLLM's values are equal to nothing but themselves."""
    read: dict[str, Any] = vars(parser.parse_args(["--model", "demo", *words]))
    return {name: repr(value) for name, value in read.items()}


@pytest.mark.parametrize(
    "text",
    [
        "--max-model-len 8k --max_num_seqs=4",
        "--numa_bind",
        "--numa_bind --no_numa_bind",
        "--no-async_scheduling",
        "--gpu-memory-util 0.5",
        "-tp 2 -q fp8",
        "-O3",
        "-O=1",
        "-O 0",
        "--compilation-config.mode 3",
        "--compilation_config.mode=3 -O2",
        "-cc.cudagraph_capture_sizes+ 1,2 -cc.cudagraph_capture_sizes+=4",
        "-cc.cudagraph_capture_sizes [1,2] -cc.max_cudagraph_capture_size 2",
        '-cc.pass_config.fuse_norm_quant true -cc.pass_config={"fuse_act_quant":true} -cc.mode=3',
        "--hf-overrides.a.b 4k --hf_overrides.a.c 1.5K --hf-overrides.d 4K --hf-overrides.e x=y.z",
        "--hf-overrides.f=+5 --hf-overrides.g 1_000 --hf-overrides.h=",
        "--hf-overrides.a.b 1 --hf-overrides.a 2",
        "--limit-mm-per-prompt.image 2 --served-model-name a b",
        "--speculative-config.method ngram --speculative_config.num_speculative_tokens=3",
    ],
)
def test_words_are_read_as_vllm_reads_them(parser: ArgumentParser, text: str) -> None:
    words, options = text.split(), known_options()
    ours = [word for name, value in parse(words).items() for word in options[name].argv(value)]

    assert _read(parser, ours) == _read(parser, words)
