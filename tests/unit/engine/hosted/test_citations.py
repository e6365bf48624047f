from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptoss_bento.engine.fake_tools import FakeCited
from gptoss_bento.engine.hosted.citations import StreamedCitations, citations_in


def cited(cursor: int, line: int | None) -> FakeCited | None:
    return FakeCited(f"https://example.com/{cursor}#{line}") if cursor < 5 else None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It rains【3†L1-L4】.", [(8, 17, "https://example.com/3#1")]),
        ("【0†L7】 and 【1†source】", [(0, 6, "https://example.com/0#7"), (11, 21, "https://example.com/1#None")]),
        ("【9†L1】", []),  # the model has not seen it
        ("【3】 【†L1】 【a†L1】 【3†L1", []),
        ("", []),
    ],
)
def test_marks_are_citations_with_their_place(text: str, found: list[tuple[int, int, str]]) -> None:
    made = citations_in(text, cited)

    assert [(each["start_index"], each["end_index"], each["url"]) for each in made] == found
    assert {each["type"] for each in made} <= {"url_citation"}


@given(st.lists(st.sampled_from(["a", "【", "3", "†", "L1", "】", "【3†L1】", "【0†", "【9†L1】"])))
def test_citations_of_a_stream_are_those_of_the_whole_text(pieces: list[str]) -> None:
    stream = StreamedCitations(cited)

    added = [each for piece in pieces for each in stream.add(piece)]

    assert added == list(enumerate(citations_in("".join(pieces), cited)))
