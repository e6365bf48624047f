from __future__ import annotations

import torch
from transformers import GptOssConfig, GptOssForCausalLM

from gptoss_bento.demo import checkpoint
from gptoss_bento.training import attention


def test_fused_attention_has_the_loss_and_gradients_of_the_plain_one() -> None:
    config = GptOssConfig(**checkpoint.CONFIG | {"vocab_size": 50, "pad_token_id": 0, "dtype": "float32"})
    torch.manual_seed(1)
    model = GptOssForCausalLM(config)
    attention.register()
    tokens = torch.randint(1, 50, (3, 150))  # longer than the sliding window
    found = {}
    for name in ("eager", attention.NAME):
        model.set_attn_implementation(name)
        model.zero_grad()
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        found[name] = [loss, *(each.grad.clone() for each in model.parameters())]

    for plain, fused in zip(found["eager"], found[attention.NAME], strict=True):
        assert torch.allclose(plain, fused, atol=1e-5)
