"""The search for compilations, against a fake of the API. On a GPU it is a tool for people, not for the suite."""

from __future__ import annotations

import itertools
import json
import random

import httpx
import pytest

from tools import compilations
from tools.compilations import FEATURES, Search, prompt_lengths


def test_prompt_lengths_reach_from_one_token_to_eight_thousand() -> None:
    lengths = list(itertools.islice(prompt_lengths(random.Random(1)), 5000))

    assert min(lengths) == 1
    assert max(lengths) <= 8000
    assert sum(length > 4000 for length in lengths) > 500


async def test_search_asks_each_feature_and_counts_failures_by_their_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilations, "_STREAMS", (2,))
    asked: list[dict[str, object]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        return httpx.Response(400, text="no min_p here") if "min_p" in asked[-1] else httpx.Response(200, json={})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://server/v1") as client:
        found = Search(client, "m", random.Random(1))
        await found.run(0)

    assert all(any(feature.items() <= body.items() for body in asked) for feature in FEATURES.values())
    assert found.answered == len(FEATURES) - 1
    assert found.failures == {"no min_p here": 1}
