from __future__ import annotations

import pytest

from gptoss_bento.bench.connection import Answer, post
from gptoss_bento.errors import BenchmarkError

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
TOKEN = b'data: {"choices":[{"text":"data: x"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":3}}\n\n'
DONE = b"data: [DONE]\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def answer(*parts: bytes) -> Answer:
    found = Answer()
    for part in parts[:-1]:
        assert not found.add(part)
    assert found.add(parts[-1])
    return found


def test_request_has_the_query_the_key_and_the_wish_to_close() -> None:
    head, _, body = post("http://h:1/v1/completions?q", b"{}", "k3y", close=True).partition(b"\r\n\r\n")

    assert head.startswith(b"POST /v1/completions?q HTTP/1.1\r\nHost: h:1\r\n")
    assert b"\r\nAuthorization: Bearer k3y\r\n" in head
    assert b"\r\nConnection: close\r\n" in head
    assert (head.endswith(b"Content-Length: 2"), body) == (True, b"{}")


def test_events_are_counted_by_their_ends_however_the_bytes_are_split() -> None:
    content = HEAD + b"".join(map(chunk, (TOKEN, TOKEN, TOKEN, USAGE, DONE))) + b"0\r\n\r\n"

    for cut in range(1, len(content)):
        found = answer(content[:cut], content[cut:])
        assert len(found.event_times()) == 3, "text that looks like an event is none"
        found.check_stream(3)


def test_events_in_one_piece_come_at_the_same_time() -> None:
    found = answer(HEAD, chunk(TOKEN), chunk(TOKEN) + chunk(TOKEN), chunk(USAGE) + chunk(DONE) + b"0\r\n\r\n")

    first, second, third = found.event_times()
    assert first <= second == third


def test_first_text_of_a_response_is_its_first_delta() -> None:
    def event(name: str) -> bytes:
        return chunk(b'event: response.%s\ndata: {"type":"response.%s"}\n\n' % (name.encode(), name.encode()))

    start = event("created") + event("output_item.added")
    end = chunk(b'event: response.completed\ndata: {"usage":{"output_tokens":2,"output_tokens_details":{}}}\n\n')
    found = answer(HEAD + start, event("output_text.delta"), event("output_text.delta"), end + b"0\r\n\r\n")

    assert found.event_times() == [when for when, _ in found.arrivals[1:3]]
    assert found.tokens == 2


def test_answer_with_a_length_ends_there() -> None:
    found = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 27\r\n\r\n", b'{"completion_tokens": 12}  ')

    assert found.tokens == 12


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ((HEAD, chunk(TOKEN + USAGE), b"0\r\n\r\n"), "without"),
        ((HEAD, chunk(TOKEN + DONE), b"0\r\n\r\n"), "The server answered"),
        ((HEAD, chunk(USAGE.replace(b"3", b"2") + DONE), b"0\r\n\r\n"), "counted 2 tokens, but 3"),
        ((b"HTTP/1.1 429 Too Many\r\ncontent-length: 4\r\n\r\nfull",), "full"),
    ],
)
def test_stream_that_is_not_whole_is_an_error(parts: tuple[bytes, ...], error: str) -> None:
    with pytest.raises(BenchmarkError, match=error):
        answer(*parts).check_stream(3)
