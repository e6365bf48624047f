"""What becomes of some fields depends on it: the model that is served, and the operator's defaults for it. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServedModel:
    """The served model, as far as the fields of requests depend on it.

    Args:
        default_temperature: of a request that names none, by the generation config; None: vLLM's own, 1.
    """

    default_temperature: float | None = None


GPT_OSS = ServedModel()
"""GPT-OSS with the defaults of vLLM."""
