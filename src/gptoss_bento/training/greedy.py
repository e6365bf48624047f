"""What the trained model says, without vLLM: the most likely token each time, in the compact file's vocabulary.

For tests, and to look at new weights right after the training. Tokens that the model does not know are left out of the
choice; at temperature 0 vLLM chooses the same, as their logits are 0.
"""

import struct
from pathlib import Path

import torch
from transformers import GptOssConfig, GptOssForCausalLM

from gptoss_bento.demo import checkpoint
from gptoss_bento.training import harmony_text

_UNKNOWN = 0
_ENDS = ("<|return|>", "<|call|>", "<|endoftext|>")


class Speaker:
    """A model that was read from a compact file."""

    def __init__(self, weights: Path = checkpoint.WEIGHTS) -> None:
        compact = checkpoint.load_compact(weights)
        known = compact.pop(checkpoint.TOKENS)
        self.tokens = struct.unpack(f"<{known.shape[0]}i", known.data)
        self.classes = {token: number for number, token in enumerate(self.tokens, start=1)}
        self.model = loaded(compact, len(self.tokens) + 1)
        self.ends = {self.classes.get(harmony_text.encode(end)[0]) for end in _ENDS}

    def reply(self, prompt: list[int], limit: int = 200) -> str:
        """The text that goes on after the prompt, up to and including its end, or `limit` tokens of it."""
        inputs = torch.tensor([[self.classes.get(token, _UNKNOWN) for token in prompt]])
        said: list[int] = []
        cache = None
        with torch.inference_mode():
            while len(said) < limit and (not said or said[-1] not in self.ends):
                output = self.model(input_ids=inputs, past_key_values=cache, use_cache=True)
                cache = output.past_key_values
                said.append(1 + int(output.logits[0, -1, 1:].argmax()))
                inputs = torch.tensor([[said[-1]]])
        return str(harmony_text.encoding().decode([self.tokens[number - 1] for number in said]))


def loaded(tensors: dict[str, checkpoint.Tensor], vocabulary_size: int) -> GptOssForCausalLM:
    """The model of a compact file without the ids of its tokens, in float32, with a zero row for the unknown class."""
    small = {"vocab_size": vocabulary_size, "pad_token_id": _UNKNOWN, "eos_token_id": None, "dtype": "float32"}
    model = GptOssForCausalLM(GptOssConfig(**checkpoint.CONFIG | small))
    state = {}
    for name, tensor in tensors.items():
        value = torch.frombuffer(bytearray(tensor.data), dtype=torch.bfloat16).reshape(tensor.shape).float()
        unknown = torch.zeros(1, *tensor.shape[1:])
        state[name] = torch.cat([unknown, value]) if name in checkpoint.ROWS_PER_TOKEN else value
    model.load_state_dict(state)
    return model.eval()
