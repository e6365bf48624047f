"""What becomes of some fields depends on it: the model that is served, and the operator's defaults for it. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServedModel:
    """The served model, as far as the fields of requests depend on it.

    Args:
        writes_harmony: whether its prompts and answers have the Harmony format: whether it is GPT-OSS. Others, which
            ALLOW_OTHER_ARCHITECTURES lets in, have a chat template.
        default_temperature: of a request that names none, by the generation config; None: vLLM's own, 1.
        parses_reasoning: whether vLLM separates the reasoning of answers from their text. Always for GPT-OSS; for
            others where the operator names a parser.
    """

    writes_harmony: bool = True
    default_temperature: float | None = None
    parses_reasoning: bool = True


GPT_OSS = ServedModel()
"""GPT-OSS with the defaults of vLLM."""
