"""What is kept of a cell's output: its two ends, in bounded memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gptoss_bento.tools.python.output import Output


def output_of(*pieces: bytes, limit: int) -> Output:
    output = Output(limit)
    for piece in pieces:
        output.add(piece)
    return output


def test_output_within_the_limit_is_whole() -> None:
    assert output_of(b"a", b"bcd", b"ef", limit=6).text() == "abcdef"


def test_output_beyond_the_limit_has_its_beginning_and_its_end() -> None:
    assert output_of(b"abcdef", b"ghij", limit=6).text() == "abc\n[4 bytes of output left out]\nhij"


def test_output_that_is_no_text_is_replaced() -> None:
    assert output_of(b"\xff\0", limit=6).text() == "\ufffd\ufffd"


def test_output_of_nothing_is_empty() -> None:
    assert Output(6).text() == ""


@given(st.lists(st.text("abc", max_size=20), max_size=20), st.integers(2, 40))
def test_output_keeps_as_much_as_it_may(pieces: list[str], limit: int) -> None:
    output, whole = output_of(*(piece.encode() for piece in pieces), limit=limit), "".join(pieces)

    text = output.text()

    assert output.received == len(whole)
    if len(whole) <= limit:
        assert text == whole
    else:
        head, note, tail = text.split("\n")
        assert (len(head) + len(tail), f"[{len(whole) - limit} bytes" in note) == (limit, True)
        assert (whole.startswith(head), whole.endswith(tail)) == (True, True)
