"""The compact weights and the Hugging Face folder made of them."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from gptoss_bento.demo import checkpoint
from gptoss_bento.demo.checkpoint import ROWS_PER_TOKEN, TOKENS, Tensor
from gptoss_bento.training import harmony_text

FILES = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
SMALL = {
    ROWS_PER_TOKEN[0]: Tensor("BF16", (2, 1), b"aabb"),
    ROWS_PER_TOKEN[1]: Tensor("BF16", (2, 1), b"ccdd"),
    "norm": Tensor("BF16", (1,), b"nn"),
    TOKENS: Tensor("I32", (2,), struct.pack("<2i", 3, 7)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, vocabulary: Path) -> Path:
    target = tmp_path_factory.mktemp("models") / "demo"
    checkpoint.expand(target, vocabulary)
    return target


def digest(folder: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.iterdir()))).hexdigest()


def test_compact_file_holds_what_was_saved(tmp_path: Path) -> None:
    checkpoint.save_compact(tmp_path / "weights", SMALL)

    assert checkpoint.load_compact(tmp_path / "weights") == SMALL


def test_rows_are_at_the_ids_of_their_tokens() -> None:
    tensors = checkpoint.full(SMALL)

    embedding = tensors[ROWS_PER_TOKEN[0]]
    assert TOKENS not in tensors
    assert embedding.shape == (checkpoint.VOCABULARY_SIZE, 1)
    assert embedding.data[6:8] + embedding.data[14:16] == b"aabb"
    assert embedding.data.strip(b"\0") == b"aa" + bytes(6) + b"bb"


def test_packed_weights_are_small_and_match_the_configuration() -> None:
    tensors = checkpoint.load_compact(checkpoint.WEIGHTS)

    assert checkpoint.WEIGHTS.stat().st_size < 2_000_000
    (known,) = tensors[TOKENS].shape
    assert tensors[ROWS_PER_TOKEN[0]].shape == (known, checkpoint.CONFIG["hidden_size"])
    layers = {name.split(".")[2] for name in tensors if name.startswith("model.layers.")}
    assert len(layers) == checkpoint.CONFIG["num_hidden_layers"]


def test_folder_has_all_files_and_nothing_else(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == FILES
    assert [path.name for path in folder.parent.iterdir()] == ["demo"]
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [200002, 199999, 200012]


def test_expansion_is_reproducible(folder: Path, vocabulary: Path) -> None:
    before = digest(folder)

    checkpoint.expand(folder, vocabulary)

    assert digest(folder) == before


def test_failed_expansion_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        checkpoint.expand(tmp_path / "demo", tmp_path / "missing.tiktoken")

    assert list(tmp_path.iterdir()) == []


def test_weights_file_is_safetensors(folder: Path) -> None:
    with (folder / "model.safetensors").open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        size = file.seek(0, 2)

    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    assert max(ends) == size - 8 - length
    assert header["lm_head.weight"]["shape"] == [201088, checkpoint.CONFIG["hidden_size"]]


@pytest.mark.parametrize(
    "text",
    [
        "Hello, world! I'LL be there, it's 12345.",
        "def f(x):\n    return x**2  # ça va\r\n\n  done",
        "日本語のテキスト и русский 🙂",
        "<|start|>user<|message|>hi<|end|>",
    ],
)
def test_tokenizer_agrees_with_harmony(folder: Path, text: str) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    ids = tokenizer.encode(text).ids

    assert tuple(ids) == harmony_text.encode(text)
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_reserved_tokens_have_names() -> None:
    tokens = checkpoint.special_tokens()

    assert len(tokens) == 1090
    assert (tokens[200002], tokens[200012], tokens[201087]) == ("<|return|>", "<|call|>", "<|reserved_201087|>")
