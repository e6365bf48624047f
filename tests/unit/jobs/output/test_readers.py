"""From the engine's bytes to items."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptoss_bento.engine.harmony_tokens import CALL, CHANNEL, END, FINAL, MESSAGE, RETURN, START
from gptoss_bento.http.paths import CHAT, COMPLETIONS
from gptoss_bento.jobs.input import EngineRequest, OutputFormat
from gptoss_bento.jobs.output.batching import ITEM_BYTES, Schedule
from gptoss_bento.jobs.output.readers import EngineError, EngineUnavailableError, error_text, reader
from gptoss_bento.strict_json import dumps

DONE = "data: [DONE]\n\n"


def tokens_request(path: str = COMPLETIONS, *, echo: str = "", reasoning: bool = True, **fields: Any) -> EngineRequest:
    schedule = fields.pop("schedule", Schedule(50, 1, 3))
    return EngineRequest(
        "POST", path, "", fields, True, OutputFormat.TOKENS, schedule, echo=echo, show_reasoning=reasoning
    )


def frames_request(output: OutputFormat = OutputFormat.FRAMES, schedule: Schedule | None = None) -> EngineRequest:
    return EngineRequest("POST", CHAT, stream=True, format=output, schedule=schedule or Schedule(50, 1, 3))


def read(request: EngineRequest, body: str | bytes, cut: int | None = None, pieces: Any = None) -> list[Any]:
    raw = body.encode() if isinstance(body, str) else body
    width = cut or len(raw) or 1
    one = reader(request, pieces or (lambda _: None), event_stream=request.stream)
    items = [item for start in range(0, len(raw), width) for item in one.feed(raw[start : start + width])]
    return items + list(one.finish())


def frame(value: Any) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def completion_events(words: Sequence[str], per_event: int = 1, index: int = 0, prompt: int = 3) -> list[str]:
    """A stream in which token 1000 + i means words[i]."""
    frames = []
    for start in range(0, len(words), per_event):
        ids = list(range(1000 + start, 1000 + min(start + per_event, len(words))))
        choice: dict[str, Any] = {"index": index, "text": "".join(words[start : start + per_event]), "token_ids": ids}
        if start == 0:
            choice["prompt_token_ids"] = list(range(prompt))
        frames.append(frame({"choices": [choice]}))
    return frames


def chat_event(ids: list[int], **delta: Any) -> str:
    return frame({"choices": [{"index": 0, "delta": delta, "token_ids": ids}]})


def sizes(items: list[Any]) -> list[int]:
    return [sum(len(choice["tokens"]) for choice in item["choices"]) for item in items]


def outputs(items: list[Any]) -> list[int]:
    return [item["usage"]["output"] for item in items]


def joined(items: list[Any], index: int = 0) -> str:
    return "".join("".join(item["choices"][index]["tokens"]) for item in items)


# tokens, streamed


@pytest.mark.parametrize("per_event", [1, 2, 7, 64, 200])
def test_schedule_is_exact_whatever_the_events_hold(per_event: int) -> None:
    words = [f" {i}" for i in range(200)]
    items = read(
        tokens_request(),
        "".join(completion_events(words, per_event)) + DONE,
        pieces=lambda ids: [words[token - 1000].encode() for token in ids],
    )

    assert sizes(items) == [1, 3, 9, 27, 50, 50, 50, 10]
    assert outputs(items) == [1, 4, 13, 40, 90, 140, 190, 200]
    assert {item["usage"]["input"] for item in items} == {3}
    assert [token for item in items for token in item["choices"][0]["tokens"]] == words


@given(
    st.lists(st.text(max_size=3), max_size=40),
    st.integers(1, 9),
    st.integers(1, 50),
    st.floats(1, 20),
    st.floats(0.5, 4),
    st.booleans(),
)
def test_entries_joined_are_the_text_one_for_each_token(
    words: list[str], per_event: int, cut: int, largest: float, growth: float, known: bool
) -> None:
    request = tokens_request(schedule=Schedule(largest, 1, growth))
    pieces = (lambda ids: [words[token - 1000].encode() for token in ids]) if known else None
    items = read(request, "".join(completion_events(words, per_event)) + DONE, cut, pieces)

    assert joined(items) == "".join(words)
    assert sum(sizes(items)) == len(words)
    assert outputs(items) == [sum(sizes(items[: i + 1])) for i in range(len(items))]


def test_counter_runs_over_all_sequences() -> None:
    first, second = completion_events(["a", "b"]), completion_events(["x", "y"], index=1)
    body = "".join(frame for pair in zip(first, second, strict=True) for frame in pair) + DONE
    items = read(tokens_request(n=2), body)

    assert items == [
        {"choices": [{"tokens": ["a"]}, {"tokens": []}], "usage": {"input": 3, "output": 1}},
        {"choices": [{"tokens": ["b"]}, {"tokens": ["x", "y"]}], "usage": {"input": 3, "output": 4}},
    ]


def test_unfinished_character_is_an_empty_entry() -> None:
    body = frame({"choices": [{"index": 0, "text": "", "token_ids": [1]}]})
    body += frame({"choices": [{"index": 0, "text": "é", "token_ids": [2]}]}) + DONE

    assert [item["choices"][0]["tokens"] for item in read(tokens_request(), body)] == [[""], ["é"]]


def test_echo_comes_before_the_answer() -> None:
    items = read(tokens_request(echo="Once "), "".join(completion_events(["upon"])) + DONE)

    assert joined(items) == "Once upon"


def test_output_without_tokens_has_no_item() -> None:
    assert read(tokens_request(), DONE) == []


HEAD = [CHANNEL, 35644, MESSAGE]
TURN = [END, START, 173781, CHANNEL, FINAL, MESSAGE]


def test_reasoning_is_no_token_but_counts() -> None:
    body = chat_event(HEAD) + chat_event([1, 2], reasoning="I think") + chat_event(TURN)
    body += chat_event([3], content="Yes") + chat_event([4], content="!") + chat_event([RETURN]) + DONE
    items = read(tokens_request(CHAT), body)

    assert items == [
        {"choices": [{"tokens": ["Yes"], "reasoning": "I think"}], "usage": {"input": 0, "output": 12}},
        {"choices": [{"tokens": ["!", ""]}], "usage": {"input": 0, "output": 14}},
    ]


def test_event_may_hold_the_whole_answer() -> None:
    ids = [*HEAD, 1, 2, *TURN, 3, 4, RETURN]
    body = chat_event(ids, reasoning="I think", content="Yes!") + DONE
    items = read(tokens_request(CHAT), body, pieces=lambda ids: [{3: b"Yes", 4: b"!"}.get(i, b"") for i in ids])

    assert [item["choices"][0]["tokens"] for item in items] == [["Yes"], ["!", ""]]
    assert items[0]["choices"][0]["reasoning"] == "I think"
    assert outputs(items) == [12, 14]


def test_reasoning_that_is_hidden_still_counts() -> None:
    body = chat_event(HEAD) + chat_event([1, 2], reasoning="I think") + DONE

    assert read(tokens_request(CHAT, reasoning=False), body) == [
        {"choices": [{"tokens": []}], "usage": {"input": 0, "output": 5}}
    ]


def test_text_that_the_engine_held_back_for_a_stop_string_joins_a_later_token() -> None:
    body = chat_event([*HEAD, *TURN])
    for token, text in enumerate(["one", "", "", " two", ""]):
        body += chat_event([token], content=text)
    items = read(tokens_request(CHAT, stop=" thr"), body + DONE)

    assert [item["choices"][0]["tokens"] for item in items] == [["one"], ["", "", " two"], [""]]


def test_tool_calls_come_whole_in_the_last_item() -> None:
    body = chat_event([CHANNEL, 12606, MESSAGE], tool_calls=[{"index": 0, "id": "c", "function": {"name": "f"}}])
    body += chat_event([1], tool_calls=[{"index": 0, "function": {"arguments": '{"a":'}}])
    body += chat_event([2, CALL], tool_calls=[{"index": 0, "function": {"arguments": "1}"}}]) + DONE
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}

    assert read(tokens_request(CHAT), body) == [
        {"choices": [{"tokens": [], "tool_calls": [call]}], "usage": {"input": 0, "output": 6}}
    ]


def test_preamble_to_a_tool_call_is_not_the_answer() -> None:
    body = chat_event([CHANNEL, 12606, MESSAGE]) + chat_event([1], content="Let me look.") + DONE

    assert read(tokens_request(CHAT), body)[0]["choices"] == [{"tokens": [], "commentary": "Let me look."}]


def test_header_that_is_truncated_is_no_text() -> None:
    body = chat_event([CHANNEL]) + chat_event([12606], content="<|channel|>commentary") + DONE

    assert read(tokens_request(CHAT), body)[-1] == {"choices": [{"tokens": []}], "usage": {"input": 0, "output": 2}}


def test_item_of_a_stream_is_at_most_a_megabyte() -> None:
    words = ["\u0001" * 20_000] * 40  # six bytes of JSON for each character
    items = read(tokens_request(schedule=Schedule(1000, 1, 1)), "".join(completion_events(words)) + DONE)

    assert joined(items) == "".join(words)
    assert len(items) > 1
    assert all(len(dumps(item).encode()) <= ITEM_BYTES for item in items)


# errors in streams


@pytest.mark.parametrize("request_", [tokens_request(), tokens_request(CHAT), frames_request()])
def test_error_in_the_stream_is_an_error(request_: EngineRequest) -> None:
    with pytest.raises(EngineError, match=r"^it stumbled$"):
        read(request_, frame({"error": {"message": "it stumbled"}}) + DONE)


@pytest.mark.parametrize("streamed", [False, True])
def test_cancelled_response_is_no_success(streamed: bool) -> None:
    response = {"object": "response", "status": "cancelled", "output": []}
    body = frame({"type": "response.completed", "response": response}) if streamed else json.dumps(response)
    request = EngineRequest("POST", "/v1/responses", stream=streamed, format=OutputFormat.FRAMES)
    with pytest.raises(EngineUnavailableError, match="aborted"):
        read(request, body)


@pytest.mark.parametrize("request_", [tokens_request(), frames_request()])
def test_aborted_generation_is_no_success(request_: EngineRequest) -> None:
    with pytest.raises(EngineError, match="aborted"):
        read(request_, frame({"choices": [{"index": 0, "text": "", "finish_reason": "abort"}]}) + DONE)


def test_failed_response_is_an_error() -> None:
    event = {"type": "response.failed", "response": {"error": {"message": "no memory"}}}
    with pytest.raises(EngineError, match="no memory"):
        read(frames_request(), f"event: response.failed\n{frame(event)}")


def test_items_before_an_error_are_kept() -> None:
    one = reader(tokens_request(), lambda _: None, event_stream=True)
    given_ = list(one.feed("".join(completion_events(["a", "b"])).encode()))

    assert sizes(given_) == [1]
    with pytest.raises(EngineError, match="broke off"):
        list(one.finish())


# frames


@pytest.mark.parametrize("cut", [1, 3, 1000])
def test_strings_joined_are_the_body(cut: int) -> None:
    body = "".join(frame({"choices": [], "text": f"é{i}"}) for i in range(20)) + DONE
    items = read(frames_request(), body, cut)

    assert "".join(items) == body
    assert [item.count("\n\n") for item in items] == [1, 3, 9, 8]


def test_parsed_frames_leave_done_out() -> None:
    body = "".join(frame({"i": i}) for i in range(4)) + DONE

    assert read(frames_request(OutputFormat.CHUNKS), body) == [[{"i": 0}], [{"i": 1}, {"i": 2}, {"i": 3}]]


def test_comment_is_a_frame_without_data() -> None:
    body = ": ping\n\n" + DONE

    assert "".join(read(frames_request(), body)) == body
    assert read(frames_request(OutputFormat.CHUNKS), body) == []


def test_large_frame_is_split() -> None:
    body = frame({"text": "x" * (3 * ITEM_BYTES)}) + DONE
    items = read(frames_request(), body)

    assert "".join(items) == body
    assert all(len(dumps(item)) <= ITEM_BYTES for item in items)


def test_stream_that_breaks_off_is_an_error() -> None:
    with pytest.raises(EngineError, match="broke off"):
        read(frames_request(), frame({"i": 0}) + "data: {")


# whole answers


def whole(path: str, body: Any, output: OutputFormat = OutputFormat.TOKENS, **fields: Any) -> Any:
    request = EngineRequest("POST", path, body=fields, format=output)
    (item,) = read(request, json.dumps(body))
    return item


USAGE = {"prompt_tokens": 9, "completion_tokens": 42, "total_tokens": 51}


def test_whole_completion_is_one_item_with_openais_keys_beside() -> None:
    body = {"choices": [{"index": 0, "text": "Hello", "finish_reason": "length"}], "usage": USAGE}

    assert whole(COMPLETIONS, body) == {
        "choices": [{"tokens": ["Hello"], "text": "Hello", "index": 0, "finish_reason": "length"}],
        "usage": {"input": 9, "output": 42, **USAGE},
    }


def test_whole_chat_has_reasoning_and_tool_calls_apart() -> None:
    message = {"role": "assistant", "content": None, "reasoning": "I think", "tool_calls": [{"id": "c"}]}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}], "usage": USAGE}
    (choice,) = whole(CHAT, body)["choices"]

    assert choice == {
        "tokens": [""],
        "reasoning": "I think",
        "tool_calls": [{"id": "c"}],
        "message": message,
        "index": 0,
        "finish_reason": "tool_calls",
    }


def test_preamble_of_a_whole_tool_call_is_not_the_answer() -> None:
    message = {"content": "Let me look.", "tool_calls": [{"id": "c"}]}
    (choice,) = whole(CHAT, {"choices": [{"index": 0, "message": message}]})["choices"]

    assert (choice["tokens"], choice["commentary"]) == ([""], "Let me look.")


@pytest.mark.parametrize(
    ("ids", "content", "tokens", "commentary"),
    [
        ([CHANNEL, 12606, MESSAGE, 1], "Let me look.", "", "Let me look."),
        ([CHANNEL, 12606], "<|channel|>commentary", "", None),
        ([CHANNEL, FINAL, MESSAGE, 1], "<|start|> is a token.", "<|start|> is a token.", None),
    ],
)
def test_answer_of_a_whole_chat_is_only_its_final_channel(
    ids: list[int], content: str, tokens: str, commentary: str | None
) -> None:
    given = {"index": 0, "message": {"content": content}, "token_ids": ids}
    (choice,) = whole(CHAT, {"choices": [given]})["choices"]

    assert choice["tokens"] == [tokens]
    assert choice.get("commentary") == commentary
    assert "token_ids" not in choice


def test_whole_chat_is_as_the_engine_ended_it() -> None:
    choice = {"index": 0, "message": {"content": "one t"}, "stop_reason": " t", "finish_reason": "stop"}

    assert whole(CHAT, {"choices": [choice]}, stop=" t")["choices"][0]["tokens"] == ["one t"]


def test_n_sequences_are_n_choices() -> None:
    body = {"choices": [{"index": i, "text": str(i)} for i in range(3)], "usage": USAGE}

    assert [choice["tokens"] for choice in whole(COMPLETIONS, body)["choices"]] == [["0"], ["1"], ["2"]]


@pytest.mark.parametrize("body", [{"object": "list"}, [1], "text", 5, None])
def test_answer_of_any_other_kind_is_the_item(body: Any) -> None:
    assert whole("/v1/models", body, OutputFormat.FRAMES) == body


def test_answer_that_is_no_json_is_a_text() -> None:
    assert read(EngineRequest("GET", "/health"), b"") == [""]


# errors of the engine


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"message": "n must be at least 1", "param": "n"}}, "n must be at least 1"),
        ({"error": {"message": "bad value", "param": "seed"}}, "seed: bad value"),
        ({"type": "error", "error": {"message": "no such model"}}, "no such model"),
        ({"error": "plain"}, "plain"),
        ({"detail": "Not Found"}, "Not Found"),
        ({"detail": [{"loc": ["x"]}]}, '[{"loc":["x"]}]'),
        ("", "The engine answered 400."),
    ],
)
def test_engines_error_is_one_sentence(body: Any, words: str) -> None:
    raw = json.dumps(body).encode() if body else b""

    assert error_text(EngineRequest("POST", CHAT), 400, raw) == words


def test_wrong_grammar_names_structured_outputs() -> None:
    request = EngineRequest("POST", COMPLETIONS, body={"structured_outputs": {"regex": "("}})
    error = {"error": {"message": "Grammar error: invalid regex\n  (\n  ^"}}
    words = "structured_outputs: Grammar error: invalid regex ( ^"

    assert error_text(request, 400, json.dumps(error).encode()) == words
    with pytest.raises(EngineError) as raised:  # streamed, it comes as an event
        read(tokens_request(structured_outputs={"regex": "("}), frame(error))
    assert str(raised.value) == words


def test_max_tokens_is_named_if_the_context_is_too_small() -> None:
    request = EngineRequest("POST", COMPLETIONS, body={"max_tokens": 5000})
    body = json.dumps({"error": {"message": "This model's maximum context length is 4096 tokens."}}).encode()

    assert "max_tokens (5000)" in error_text(request, 400, body)
