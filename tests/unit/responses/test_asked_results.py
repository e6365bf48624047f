from __future__ import annotations

from typing import Any

import pytest

from gptoss_bento.responses.asked_results import OUTPUTS, SOURCES, as_asked

RAN = {"type": "code_interpreter_call", "code": "1", "outputs": [{"type": "logs", "logs": "1"}]}
SEARCHED = {"type": "web_search_call", "action": {"type": "search", "query": "q", "sources": [{"url": "u"}]}}
OPENED = {"type": "web_search_call", "action": {"type": "open_page", "url": "u"}}


@pytest.mark.parametrize(
    ("item", "words", "expected"),
    [
        (RAN, (), {**RAN, "outputs": None}),
        (RAN, (OUTPUTS,), RAN),
        (SEARCHED, (OUTPUTS,), {**SEARCHED, "action": {"type": "search", "query": "q"}}),
        (SEARCHED, (SOURCES,), SEARCHED),
        (OPENED, (), OPENED),
        ({"type": "message"}, (), {"type": "message"}),
    ],
)
def test_results_are_for_clients_that_asked(item: dict[str, Any], words: tuple[str, ...], expected: Any) -> None:
    assert as_asked(item, words) == expected
