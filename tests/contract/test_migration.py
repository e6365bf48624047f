"""What docs/migrating-from-worker-vllm.md says of vLLM's own variables is what the installed vLLM has."""

from __future__ import annotations

import pytest

from tests.unit.test_migration import each

pytestmark = [pytest.mark.contract, pytest.mark.filterwarnings("default")]

OTHERWISE_IN_SERVE = ("VLLM_WORKER_MULTIPROC_METHOD",)
"""`vllm serve` sets these itself."""


@pytest.mark.parametrize(("name", "text"), [pair for pair in each(2) if pair.values[0].startswith("VLLM_")])
def test_default_of_a_variable_of_vllm(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm import envs

    monkeypatch.delenv(name, raising=False)
    value = envs.environment_variables[name]()

    assert name in OTHERWISE_IN_SERVE or str(int(value)) == text
