from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gptoss_bento.engine.grammar_errors import explained


class RefusedError(ValueError):
    """What vLLM goes on after."""


class ClientError(ValueError):
    """What it does not go on after."""


def refusing(cause: str) -> Any:
    def validate(_: Any) -> None:
        raise RefusedError("Invalid structural tag specification.") from RuntimeError(cause)

    return explained(validate, RefusedError, ClientError)


def params(tag: str | None) -> Any:
    return SimpleNamespace(structured_outputs=SimpleNamespace(structural_tag=tag))


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (
            "[12:43:06] /project/cpp/regex_converter.cc:83: Regex parsing error at position 2: Unclosed '['",
            "Regex parsing",
        ),
        (
            "[12:43:06] /project/cpp/x.cc:9: Check failed: (a <= b) is false: Integer exceeds maximum limit",
            "Integer exceeds",
        ),
        ("something else", "something else"),
    ],
)
def test_reason_has_nothing_of_the_inside_of_the_compiler(cause: str, reason: str) -> None:
    with pytest.raises(ClientError) as refused:
        refusing(cause)(params('{"format": {}}'))

    assert f"cannot be enforced: {reason}" in str(refused.value)
    assert ".cc" not in str(refused.value)


@pytest.mark.parametrize("tag", [None, '{"structures": []}', "no JSON"])
def test_refusal_of_another_constraint_stays_for_vllm_to_try_guidance(tag: str | None) -> None:
    with pytest.raises(RefusedError, match="Invalid structural tag"):
        refusing("x")(params(tag))
