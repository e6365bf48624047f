from __future__ import annotations

from typing import Any

import pytest

from gptoss_bento.engine.fake_tools import FakeDecision, FakeRequest
from gptoss_bento.engine.hosted.history import History, container_in
from gptoss_bento.engine.hosted.messages import text_of

QUESTION = {"type": "message", "role": "user", "content": "Weather?"}
CALL = {"type": "mcp_call", "id": "mcp_1", "server_label": "weather", "name": "now", "arguments": "{}"}
RAN = {"type": "code_interpreter_call", "container_id": "cntr_0123456789abcdef", "code": "1 + 1"}
REQUEST = {"type": "mcp_approval_request", "id": "mcpr_1", "server_label": "weather", "name": "now", "arguments": "{}"}
ANSWER = {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True}


def read(*items: Any, decisions: Any = ()) -> list[tuple[str, str]]:
    """Recipients or names of tools, and texts, of the messages that were made."""
    made = History(items, decisions).items
    return [
        (each.recipient if each.author.role == "assistant" else f"by {each.author.name}", text_of(each))
        for each in made
        if not isinstance(each, dict)
    ]


def test_items_of_the_client_stay_in_their_place() -> None:
    assert History([QUESTION, CALL, QUESTION]).items[::3] == [QUESTION, QUESTION]


@pytest.mark.parametrize(
    ("ended", "text"),
    [
        ({"output": "sunny"}, "sunny"),
        ({"error": "away"}, "away"),
        ({"error": {"type": "http_error", "code": 500, "message": "broken"}}, "broken"),
        ({"error": {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": "no"}]}}, "no"),
        ({}, "There is no result of this call."),
        ({"error": ["away"]}, "There is no result of this call."),
        ({"error": 5}, "There is no result of this call."),
    ],
)
def test_call_of_a_server_is_read_with_its_result(ended: dict[str, Any], text: str) -> None:
    assert read({**CALL, **ended}) == [("weather.now", "{}"), ("by weather.now", text)]


def test_code_is_read_with_its_output_if_the_item_has_that() -> None:
    logs = [{"type": "logs", "logs": "2"}, {"type": "image", "url": "u"}]

    assert read({**RAN, "outputs": logs}) == [("python", "1 + 1"), ("by python", "2")]
    assert read(RAN, {**RAN, "outputs": []}, {"type": "web_search_call"}, {"type": "mcp_list_tools"}) == []


@pytest.mark.parametrize("approves", [True, False])
def test_decided_call_waits_or_has_a_refusal_for_its_result(approves: bool) -> None:
    decision = FakeDecision(FakeRequest("mcpr_1", "weather", "now", "{}"), approves)
    history = History([REQUEST, ANSWER], [decision])

    assert len(history.pending) == approves
    texts = [("weather.now", "{}"), ("by weather.now", "The user did not approve this call.")]
    assert read(REQUEST, ANSWER, decisions=[decision]) == texts[: 1 if approves else 2]


def test_question_without_a_decision_is_left_out() -> None:
    assert read(REQUEST) == []


@pytest.mark.parametrize(
    ("items", "found"),
    [
        ([], None),
        ([RAN, {**RAN, "container_id": "cntr_fedcba9876543210"}, CALL], "cntr_fedcba9876543210"),
        ([RAN, {**RAN, "container_id": "../etc"}], RAN["container_id"]),
        ([{**RAN, "container_id": 5}], None),
    ],
)
def test_container_is_that_of_the_newest_code(items: list[Any], found: str | None) -> None:
    assert container_in(items) == found
