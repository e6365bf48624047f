from __future__ import annotations

from pathlib import Path

import pytest

from gptoss_bento.engine.launcher import usual_tokenizer


def test_tokenizer_of_a_model_folder_is_loaded_early(tmp_path: Path) -> None:
    assert usual_tokenizer([f"--model={tmp_path}", "--served-model-name", "gpt"]) == str(tmp_path)


@pytest.mark.parametrize(
    "words",
    [["--tokenizer", "other"], ["--tokenizer-mode=slow"], ["--trust-remote-code"], ["--skip-tokenizer-init"]],
)
def test_tokenizer_that_is_loaded_in_a_special_way_is_left_to_vllm(tmp_path: Path, words: list[str]) -> None:
    assert usual_tokenizer([f"--model={tmp_path}", *words]) == ""


def test_tokenizer_of_the_hub_is_left_to_vllm() -> None:
    assert usual_tokenizer(["--model=openai/gpt-oss-20b"]) == ""
