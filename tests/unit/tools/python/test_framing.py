"""Messages of the protocol: what was sent arrives, however it is cut; nothing else is taken for one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptoss_bento.tools.python.framing import FrameError, Frames, frame

LIMIT = 200
VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=10)
MESSAGES = st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=3), max_size=5)


@given(messages=MESSAGES, cuts=st.lists(st.integers(1, 30), max_size=20))
def test_messages_arrive_however_the_bytes_are_cut(messages: list[dict[str, Any]], cuts: list[int]) -> None:
    data, frames, received = b"".join(map(frame, messages)), Frames(10**6), []
    for cut in [*cuts, len(data)]:
        received += frames.feed(data[:cut])
        data = data[cut:]

    assert received == messages
    assert frames.unread == b""


@given(st.lists(st.binary(max_size=300), max_size=10))
def test_bytes_of_any_kind_are_bounded_messages_or_an_error(pieces: list[bytes]) -> None:
    frames = Frames(LIMIT)
    try:
        received = [message for piece in pieces for message in frames.feed(piece)]
    except FrameError:
        return

    assert all(isinstance(message, dict) for message in received)
    assert len(frames.unread) < LIMIT + 4


@given(st.binary(max_size=LIMIT))
def test_body_of_any_bytes_is_an_object_or_an_error(body: bytes) -> None:
    try:
        (message,) = Frames(LIMIT).feed(len(body).to_bytes(4, "big") + body)
    except FrameError:
        return

    assert isinstance(message, dict)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "no JSON"),
        (b"[]", "no JSON object"),
        (b"1", "no JSON object"),
        (b"[" * 1000, "no JSON"),
        (b'{"a": NaN}', "no JSON"),
        (b"\xff", "no JSON"),
    ],
)
def test_body_that_is_no_object_is_refused(body: bytes, problem: str) -> None:
    with pytest.raises(FrameError, match=problem):
        Frames(1024).feed(len(body).to_bytes(4, "big") + body)


def test_length_beyond_the_limit_is_refused_before_the_body_arrives() -> None:
    with pytest.raises(FrameError, match="4294967295 bytes; 1024 at most"):
        Frames(1024).feed(b"\xff\xff\xff\xff")


def test_lone_surrogate_arrives() -> None:
    assert Frames(100).feed(frame({"code": "\ud800"})) == [{"code": "\ud800"}]
