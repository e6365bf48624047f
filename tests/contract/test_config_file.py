"""What we read of VLLM_CONFIG_FILE and give to vLLM as options is what vLLM's own loader reads of the file."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from gptoss_bento.config.config_file import read_options
from gptoss_bento.config.vllm_options import known_options
from gptoss_bento.engine.vllm_parser import serve_parser
from tests import recipes

pytestmark = [pytest.mark.contract, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def parser() -> ArgumentParser:
    return serve_parser()


def _read(parser: ArgumentParser, words: list[str]) -> dict[str, str]:
    """By text: some of vLLM's values are equal to nothing but themselves."""
    read: dict[str, Any] = vars(parser.parse_args([*words, "--model", "demo"]))
    return {name: repr(value) for name, value in read.items() if name != "config"}


def _assert_same(parser: ArgumentParser, file: Path) -> None:
    options, found = known_options(), read_options(yaml.safe_load(file.read_text()), ())
    ours = [word for name, value in found.values.items() for word in options[name].argv(value)]

    assert (found.unknown, found.wrong) == ([], [])
    assert _read(parser, ours) == _read(parser, ["--config", str(file)])


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_recipe_is_read_as_vllm_reads_it(parser: ArgumentParser, tmp_path: Path, name: str) -> None:
    _assert_same(parser, recipes.written(tmp_path, name))


@pytest.mark.parametrize(
    "text",
    [
        "no_enable_prefix_caching: true",
        "no-enable-prefix-caching: false",
        "no-async-scheduling: true",
        "enable-prefix-caching: false",
        "enforce-eager: true",
        "disable-log-stats: false",
        "max-model-len: 8k",
        "max-model-len: [4096]",
        "gpu-memory-util: 0.5",
        "served-model-name: [a, b]",
        "served-model-name: 7",
        "cudagraph-capture-sizes: [1, 2, 4]",
        "cudagraph-capture-sizes: []",
        "compilation-config: {mode: 3, pass_config: {fuse_norm_quant: true}}",
        "compilation-config.mode: 3",
        "compilation_config.mode: 3\ncompilation-config.max_cudagraph_capture_size: 4",
        "compilation-config.cudagraph_capture_sizes+: '1,2'",
        "hf-overrides.a.b: 4k\nhf-overrides.c: '[1, 2]'",
        "max-num-seqs: 4\nmax_num_seqs: 8",
        "optimization-level: 3",
    ],
)
def test_line_is_read_as_vllm_reads_it(parser: ArgumentParser, tmp_path: Path, text: str) -> None:
    file = tmp_path / "vllm.yaml"
    file.write_text(text)

    _assert_same(parser, file)
