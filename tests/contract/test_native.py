"""What the job API relies on in vLLM: names of parameters, and how its vocabulary writes bytes."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from gptoss_bento.engine.client import token_bytes
from gptoss_bento.jobs.sampling import FORWARDED

pytestmark = [pytest.mark.contract, pytest.mark.filterwarnings("default")]


@pytest.mark.parametrize(
    ("kind", "module", "name", "refused"),
    [
        ("completion", "vllm.entrypoints.openai.completion.protocol", "CompletionRequest", set()),
        ("chat", "vllm.entrypoints.openai.chat_completion.protocol", "ChatCompletionRequest", set()),
    ],
)
def test_sampling_parameters_that_are_forwarded_are_vllms(kind: str, module: str, name: str, refused: set[str]) -> None:
    fields = set(getattr(importlib.import_module(module), name).model_fields)

    assert FORWARDED[kind] - fields == refused
    assert {"return_token_ids", "stream"} <= fields


def test_tokens_become_the_bytes_of_their_text(tmp_path: Path) -> None:
    tokenizers = importlib.import_module("tokenizers")
    transformers = importlib.import_module("transformers")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    model = tokenizers.Tokenizer(tokenizers.models.BPE({text: i for i, text in enumerate(alphabet)}, []))
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.save(str(tmp_path / "tokenizer.json"))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), eos_token="<|return|>"
    )
    text = "Grüezi €\n\x00\x7f 🙂"
    ids = tokenizer.encode(text)

    pieces = token_bytes(tokenizer, [*ids, tokenizer.eos_token_id])
    assert pieces is not None
    assert b"".join(pieces).decode() == text
    assert pieces[-1] == b""
