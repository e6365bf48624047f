"""The events of one response, made whole."""

from __future__ import annotations

from typing import Any

from gptoss_bento.responses.event_stream import EventStream, frame, parsed


def event(kind: str, **fields: Any) -> bytes:
    return frame({"type": f"response.{kind}", "sequence_number": 3, **fields})


ERROR = {"code": "server_error", "message": "why"}


def stream() -> EventStream:
    return EventStream(dict)


def done(index: int) -> bytes:
    return event("output_item.done", output_index=index, item={"id": f"msg_{index}", "type": "message"})


def test_events_of_other_kinds_are_passed_on_as_they_are() -> None:
    for given in (b": ping\n\n", b"data: [DONE]\n\n", b"", event("mcp_call.in_progress", item_id="x")):
        assert stream().feed(given) == [given]


def test_done_of_an_item_waits_for_the_event_after_it() -> None:
    one = stream()

    assert one.feed(done(0)) == []
    sent = one.feed(event("output_item.added", output_index=1, item={"type": "message", "status": "in_progress"}))
    assert [(parsed(each) or {})["item"]["status"] for each in sent] == ["completed", "in_progress"]
    assert [item["id"] for item in one.output] == ["msg_0"]


def test_end_of_a_cut_answer_is_incomplete_however_vllm_names_it() -> None:
    for name in ("completed", "incomplete"):
        one = stream()
        one.feed(done(0))
        sent = [parsed(each) or {} for each in one.feed(event(name, response={"status": "incomplete", "output": []}))]
        assert [each["type"] for each in sent] == ["response.output_item.done", "response.incomplete"]
        assert one.final == sent[1]["response"]
        assert [item["status"] for item in one.output] == ["incomplete"]


def test_stream_that_breaks_ends_with_a_failed_response() -> None:
    one = stream()
    one.feed(event("created", response={"id": "resp_1", "status": "in_progress", "output": []}))
    one.newest = event("output_text.delta", sequence_number=8)
    (event_of_end,) = one.failed(ERROR)
    failed = parsed(event_of_end)

    assert failed
    assert (failed["type"], failed["sequence_number"]) == ("response.failed", 9)
    assert failed["response"] == one.final
    assert (failed["response"]["status"], failed["response"]["error"]["message"]) == ("failed", "why")


def test_done_that_waits_is_sent_when_the_stream_breaks() -> None:
    one = stream()
    one.feed(done(0))
    assert [item["id"] for item in one.output] == ["msg_0"]
    sent = [parsed(each) or {} for each in one.failed(ERROR)]

    assert [(each["type"], each["sequence_number"]) for each in sent] == [
        ("response.output_item.done", 3),
        ("response.failed", 4),
    ]
    assert sent[1]["response"]["output"] == [sent[0]["item"]] == one.output
