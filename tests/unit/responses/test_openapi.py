"""What is added to vLLM's description of /v1/responses."""

from __future__ import annotations

from gptoss_bento.responses.openapi import with_stored_responses


def test_idempotency_key_is_described_beside_what_vllm_says() -> None:
    post = {"summary": "Create", "parameters": [{"name": "x"}], "responses": {"200": {}}}
    made = with_stored_responses({"/v1/responses": {"post": post}}, "OpenAI")["/v1/responses"]["post"]

    assert [parameter["name"] for parameter in made["parameters"]] == ["x", "Idempotency-Key"]
    assert list(made["responses"]) == ["200", "409", "410", "422"]
    assert post["responses"] == {"200": {}}


def test_description_without_an_engine_stays_empty() -> None:
    assert with_stored_responses({}, "OpenAI") == {}
