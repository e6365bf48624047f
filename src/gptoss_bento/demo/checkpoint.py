"""The demo model's weights: a compact file in the package, and the full Hugging Face folder that vLLM loads.

Of the 201088 rows of the vocabulary the model has learned some two thousand; all other rows are zero. The compact file
holds the learned rows and their token ids next to the layers, compressed; `expand` puts them back. Both
are safetensors files (https://huggingface.co/docs/safetensors). Standard library only, and the same bytes everywhere.
"""

import base64
import json
import lzma
import shutil
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WEIGHTS = Path(__file__).with_name("weights.safetensors.xz")

# GPT-OSS in small: the architecture of gpt-oss-20b with fewer and smaller layers.
CONFIG: dict[str, Any] = {
    "architectures": ["GptOssForCausalLM"],
    "model_type": "gpt_oss",
    "dtype": "bfloat16",
    "vocab_size": 201088,
    "hidden_size": 128,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"],
    "sliding_window": 128,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "attention_bias": True,
    "attention_dropout": 0.0,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "experts_per_token": 2,
    "router_aux_loss_coef": 0.9,
    "output_router_logits": False,
    "hidden_act": "silu",
    "swiglu_limit": 7.0,
    "rms_norm_eps": 1e-05,
    "initializer_range": 0.06,
    "max_position_embeddings": 131072,
    "initial_context_length": 4096,
    "rope_theta": 150000,
    "rope_scaling": {
        "rope_type": "yarn",
        "factor": 32.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
        "original_max_position_embeddings": 4096,
    },
    "tie_word_embeddings": False,
    "use_cache": True,
    "transformers_version": "5.0.0",  # without it, transformers takes the tokenizer for an old one of Mistral's
    "eos_token_id": 200002,
    "pad_token_id": 199999,
}
GENERATION_CONFIG: dict[str, Any] = {
    "bos_token_id": 199998,
    "do_sample": True,
    "eos_token_id": [200002, 199999, 200012],
    "pad_token_id": 199999,
}

# The tensors that have one row for each token of the vocabulary.
ROWS_PER_TOKEN = ("model.embed_tokens.weight", "lm_head.weight")
TOKENS = "tokens"

FIRST_SPECIAL, VOCABULARY_SIZE = 199998, 201088
SPECIAL_TOKENS = {
    199998: "<|startoftext|>",
    199999: "<|endoftext|>",
    200002: "<|return|>",
    200003: "<|constrain|>",
    200005: "<|channel|>",
    200006: "<|start|>",
    200007: "<|end|>",
    200008: "<|message|>",
    200012: "<|call|>",
    200018: "<|endofprompt|>",
}

# How o200k cuts text into words before it looks for tokens (published with tiktoken).
_LETTERS = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
WORD_PATTERN = "|".join(
    [
        rf"[^\r\n\p{{L}}\p{{N}}]?[{_LETTERS[0]}]*[{_LETTERS[1]}]+{_SUFFIX}",
        rf"[^\r\n\p{{L}}\p{{N}}]?[{_LETTERS[0]}]+[{_LETTERS[1]}]*{_SUFFIX}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)


@dataclass(frozen=True)
class Tensor:
    """A tensor as a safetensors file holds it: the name of its type, its shape, its bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


def expand(target: Path, vocabulary: Path) -> None:
    """Writes the model as a Hugging Face folder; `vocabulary` is a verified `o200k_base.tiktoken`.

    The folder appears complete or not at all; one that is there already is replaced.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        _write_files(folder, vocabulary)
        folder.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        folder.replace(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_files(folder: Path, vocabulary: Path) -> None:
    _write_json(folder / "config.json", CONFIG)
    _write_json(folder / "generation_config.json", GENERATION_CONFIG)
    _write_json(folder / "tokenizer_config.json", tokenizer_config())
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(vocabulary), ensure_ascii=False), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(pack(full(load_compact(WEIGHTS))))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


# Weights


def save_compact(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes a compact file."""
    path.write_bytes(lzma.compress(pack(tensors), preset=9 | lzma.PRESET_EXTREME))


def load_compact(path: Path) -> dict[str, Tensor]:
    """Reads a compact file."""
    return unpack(lzma.decompress(path.read_bytes()))


def full(compact: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the full model: rows at their token ids, and zero for all tokens not learned."""
    tokens = struct.unpack(f"<{compact[TOKENS].shape[0]}i", compact[TOKENS].data)
    tensors = {name: tensor for name, tensor in compact.items() if name != TOKENS}
    return tensors | {name: _spread(tensors[name], tokens) for name in ROWS_PER_TOKEN}


def _spread(rows: Tensor, tokens: tuple[int, ...]) -> Tensor:
    size = len(rows.data) // len(tokens)
    data = bytearray(size * VOCABULARY_SIZE)
    for index, token in enumerate(tokens):
        data[token * size : (token + 1) * size] = rows.data[index * size : (index + 1) * size]
    return Tensor(rows.dtype, (VOCABULARY_SIZE, *rows.shape[1:]), bytes(data))


def pack(tensors: dict[str, Tensor]) -> bytes:
    """The content of a safetensors file: the header's length, the header as JSON, the tensors' bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in sorted(tensors.items()):
        start, end = end, end + len(tensor.data)
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *(tensor.data for _, tensor in sorted(tensors.items()))])


def unpack(content: bytes) -> dict[str, Tensor]:
    """The tensors of a safetensors file."""
    start = 8 + int(struct.unpack_from("<Q", content)[0])
    header: dict[str, Any] = json.loads(content[8:start])
    tensors = {}
    for name in header.keys() - {"__metadata__"}:
        first, last = header[name]["data_offsets"]
        data = content[start + first : start + last]
        tensors[name] = Tensor(header[name]["dtype"], tuple(header[name]["shape"]), data)
    return tensors


# Tokenizer


def special_tokens() -> dict[int, str]:
    """All special tokens by id; the ones without a use are called reserved, as OpenAI does."""
    return {i: SPECIAL_TOKENS.get(i, f"<|reserved_{i}|>") for i in range(FIRST_SPECIAL, VOCABULARY_SIZE)}


def tokenizer_config() -> dict[str, Any]:
    """`tokenizer_config.json`. vLLM renders chats of GPT-OSS by Harmony itself, so that no chat template is needed."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|startoftext|>",
        "eos_token": "<|return|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": CONFIG["max_position_embeddings"],
    }


def tokenizer(vocabulary: Path) -> dict[str, Any]:
    """`tokenizer.json`: byte pair encoding with the ranks of `o200k_base.tiktoken` and GPT-OSS's special tokens."""
    ranks = read_ranks(vocabulary)
    letters = _byte_letters()
    spelled = {token: "".join(letters[byte] for byte in token) for token in ranks}
    split = {"type": "Split", "pattern": {"Regex": WORD_PATTERN}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(i, text) for i, text in special_tokens().items()],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level,
        "decoder": byte_level | {"add_prefix_space": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": {spelled[token]: rank for token, rank in ranks.items()},
            "merges": [[spelled[left], spelled[right]] for left, right in _merges(ranks)],
        },
    }


def read_ranks(vocabulary: Path) -> dict[bytes, int]:
    """The tokens and their ranks, in the order of rank."""
    lines = (line.split() for line in vocabulary.read_bytes().splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def _merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Every pair of tokens that make up another one; the lower the rank of the whole, the earlier the merge."""
    merges = []
    for token in ranks:
        pairs = ((token[:i], token[i:]) for i in range(1, len(token)))
        known = [(left, right) for left, right in pairs if left in ranks and right in ranks]
        merges += sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
    return merges


def _byte_letters() -> list[str]:
    """The letter for each byte in tokenizer.json: itself where it is printable, else one above 255 (GPT-2's way)."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _added_token(token: int, text: str) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": token, "content": text, **flags}
