"""answers.yaml is well-formed. Whether the model gives these answers, the integration tests see."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
import yaml

from gptoss_bento.paths import PACKAGE

FILE = PACKAGE / "training" / "answers.yaml"
ANSWERS: list[dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))["answers"]


def test_prompts_are_at_least_forty_of_all_kinds() -> None:
    kinds = Counter(answer["kind"] for answer in ANSWERS)

    assert kinds["chat"] >= 40
    assert kinds.keys() == {
        "chat", "completion", "multi-turn", "system-prompt", "tool-call", "tool-result", "json-schema", "json-prompt",
        "unknown",
    }  # fmt: skip


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: str(answer.get("ask") or answer["kind"]))
def test_entry_has_one_request_and_one_way_to_judge_the_answer(answer: dict[str, Any]) -> None:
    assert len(answer.keys() & {"ask", "messages", "prompt"}) == 1
    assert len(answer.keys() & {"expect", "call", "json"}) == 1
    re.compile(answer.get("expect", ""))


def test_requests_are_listed_once() -> None:
    requests = Counter(
        repr({k: v for k, v in answer.items() if k not in ("expect", "call", "json")}) for answer in ANSWERS
    )

    assert max(requests.values()) == 1
