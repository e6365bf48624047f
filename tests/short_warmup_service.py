"""The whole service with a short warm-up: `bentoml serve tests.short_warmup_service:GptOss`.

Batches of 64 and 80 requests are for kernels that a CPU does not have, and take it minutes. What the batches are is
tested in tests/unit/engine/test_warmup.py.
"""

from __future__ import annotations

from gptoss_bento.engine import warmup

warmup._SPLIT_BATCHES = (1, 2, 9)  # type: ignore[assignment]  # before a worker asks for them

from service import GptOss  # noqa: E402

__all__ = ["GptOss"]
